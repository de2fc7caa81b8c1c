// Mints unsubd's headers without unsubd. KEY: the hex of `unsubd sender key SENDER --signing`. See README.md.
const { createHmac } = require("node:crypto");
const { domainToASCII } = require("node:url");

function base32(bytes) {
  const bits = [...bytes].map((octet) => octet.toString(2).padStart(8, "0")).join("");
  return (bits.match(/.{1,5}/g) ?? []).map((five) => "abcdefghijklmnopqrstuvwxyz234567"[parseInt(five.padEnd(5, "0"), 2)]).join("");
}

function canonical(address) {
  const text = address.normalize("NFC").trim(), at = text.lastIndexOf("@");
  let local = text.slice(0, at), domain = text.slice(at + 1);
  for (let folded; (folded = local.toLowerCase().normalize("NFC")) !== local; ) local = folded;
  const literal = /^\[[0-9A-Za-z:.-]+\]$/.test(domain);
  domain = domain.toLowerCase(); // first: older tables make "ss" of a capital sharp s
  domain = (/^[\x00-\x7f]*$/.test(domain) ? domain : domainToASCII(domain)).replace(/\.+$/, "");
  const known = literal || (domain.length <= 253 && /^[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*$/.test(domain));
  const special = /[\s\x85"(),:;<>@[\\\]]/.test(local) && !/^"([^"\\]|\\.)*"$/.test(local);
  if (at < 1 || !known || special || /[\x00-\x1f\x7f]|\p{Cs}/u.test(text)) throw new RangeError("not one bare address");
  return `${local}@${domain}`;
}

function unsubscribeHeaders(key, sender, group, recipient, template, publicUrl) {
  const address = canonical(recipient), at = address.lastIndexOf("@");
  const local = address.slice(0, at), domain = address.slice(at + 1);
  if (!/^[a-z0-9]{1,16}$/.test(sender) || !Number.isInteger(group) || group < 0 || group > 4294967295) throw new RangeError("no such sender or group");
  const signed = ["unsubd-tag-1", sender, String(group), address].join("\0");
  const head = `${base32(createHmac("sha256", Buffer.from(key, "hex")).update(signed).digest()).slice(0, 13)}-${sender}-${group}-`;
  const ldh = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/.test(domain);
  const readable = ldh && /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/.test(local);
  const tag = readable ? `a${head}${local}_${domain}` : `b${head}${base32(Buffer.from(address))}`;
  const mailbox = template.replace("{tag}", () => tag);
  if (mailbox.lastIndexOf("@") > 64) throw new RangeError("address too long: its tag must be stored (form h), ask unsubd for its headers");
  return { "List-Unsubscribe": `<mailto:${mailbox}>, <${publicUrl}/u/${tag}>`, "List-Unsubscribe-Post": "List-Unsubscribe=One-Click" };
}

module.exports = { unsubscribeHeaders };
