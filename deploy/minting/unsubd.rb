# Mints unsubd's headers without unsubd. KEY: the hex of `unsubd sender key SENDER --signing`. See README.md.
require "openssl"

module Unsubd
  class Refused < ArgumentError; end

  def self.headers(key, sender, group, recipient, template, public_url)
    address = canonical(recipient)
    local, _, domain = address.rpartition("@")
    raise Refused, "no such sender or group" unless sender.match?(/\A[a-z0-9]{1,16}\z/) && (0..4294967295).include?(group)
    signed = ["unsubd-tag-1", sender, group.to_s, address].join("\0")
    mac = base32(OpenSSL::HMAC.digest("SHA256", [key].pack("H*"), signed))[0, 13]
    readable = local.match?(/\A[a-z0-9_-]+(\.[a-z0-9_-]+)*\z/) && domain.match?(/\A[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\z/)
    tag = (readable ? "a" : "b") + "#{mac}-#{sender}-#{group}-" + (readable ? "#{local}_#{domain}" : base32(address))
    mailbox = template.sub("{tag}") { tag }
    raise Refused, "address too long: its tag must be stored (form h), ask unsubd for its headers" if mailbox.rindex("@") > 64
    { "List-Unsubscribe" => "<mailto:#{mailbox}>, <#{public_url}/u/#{tag}>", "List-Unsubscribe-Post" => "List-Unsubscribe=One-Click" }
  end

  def self.canonical(address)
    raise Refused, "address outside ASCII: ask unsubd for its headers" unless address.ascii_only?
    local, at, domain = address.strip.downcase.rpartition("@")
    literal = domain.match?(/\A\[[0-9a-z:.-]+\]\z/)
    domain = domain.sub(/\.+\z/, "")
    known = literal || (domain.length <= 253 && domain.match?(/\A[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\z/))
    special = local.match?(/[[:space:]"(),:;<>@\[\\\]]/) && !local.match?(/\A"([^"\\]|\\.)*"\z/m)
    raise Refused, "not one bare address" if at.empty? || local.empty? || !known || special || local.match?(/[\x00-\x1f\x7f]/)
    "#{local}@#{domain}"
  end

  def self.base32(bytes)
    bytes.unpack1("B*").scan(/.{1,5}/).map { |five| "abcdefghijklmnopqrstuvwxyz234567"[five.ljust(5, "0").to_i(2)] }.join
  end
  private_class_method :canonical, :base32
end
