// Refreshes the console every 3 s; without it the page is whole, only not live.
const live = document.getElementById("live");
setInterval(async () => {
  if (document.hidden || getSelection().toString()) return;
  try {
    const answer = await fetch(live.dataset.from, { redirect: "error" });
    live.innerHTML = await answer.text();
  } catch {
    location.reload();
  }
}, 3000);
