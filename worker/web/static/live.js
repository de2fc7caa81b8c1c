// Keys, "choose all", and the live part of a page. Without it every page is whole, only not live.
const live = document.getElementById("live");
const lost = document.getElementById("lost");
let asking = false;
let prefix = false;

async function refresh() {
  const open = document.querySelector("#live details[open]"); // somebody reads there
  if (asking || document.hidden || open || getSelection().toString()) return;
  asking = true;
  try {
    const answer = await fetch(live.dataset.from, { redirect: "manual" });
    if (answer.type === "opaqueredirect") return location.reload(); // the session has ended: to the login
    if (!answer.ok) throw new Error(answer.status);
    live.innerHTML = await answer.text();
    lost.hidden = true;
  } catch {
    lost.hidden = false; // what is shown is old: say so, and go on asking
  } finally {
    asking = false;
  }
}
if (live) setInterval(refresh, 3000);

const places = { o: "/ops", q: "/ops/queue", n: "/ops/quarantine", s: "/ops/senders", w: "/ops/sources" };
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey;
  if (typing) return;
  if (event.key === "/") {
    event.preventDefault();
    const field = document.getElementById("q");
    return field ? field.focus() : location.assign("/ops/search");
  }
  if (prefix && places[event.key]) location.assign(places[event.key]);
  prefix = event.key === "g";
});

document.addEventListener("change", (event) => {
  const name = event.target.dataset.all;
  if (!name) return;
  for (const box of document.querySelectorAll(`input[name="${name}"]`)) box.checked = event.target.checked;
});
