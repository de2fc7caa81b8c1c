// Refreshes the console every 3 s; without it the page is whole, only not live.
const live = document.getElementById("live");
const lost = document.getElementById("lost");
let asking = false;
setInterval(async () => {
  if (asking || document.hidden || getSelection().toString()) return;
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
}, 3000);
