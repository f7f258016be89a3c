// The few things that need a script: parts of pages that are loaded anew, and live watches.
// Without it pages work, and show what was when they were loaded.
"use strict";

// An element with data-poll is filled with what that address gives, every data-every milliseconds,
// as long as somebody looks. An answer that doesn't come leaves what is there, and is told.
async function refresh(element) {
  // Nothing is pulled away from under who stands in it with the keyboard.
  if (document.hidden || element.contains(document.activeElement)) return;
  let said = "";
  try {
    const answer = await fetch(element.dataset.poll, { signal: AbortSignal.timeout(15000) });
    if (answer.redirected) { location.reload(); return; }
    if (!answer.ok) throw new Error();
    const text = await answer.text();
    const left = element.querySelector(".scroll")?.scrollLeft ?? 0;
    element.innerHTML = text;
    if (left) element.querySelector(".scroll").scrollLeft = left;
  } catch {
    said = "The console doesn't answer; what is shown is old.";
  }
  const note = document.getElementById("old") || document.body.appendChild(document.createElement("p"));
  note.id = "old";
  note.className = said ? "notice bad floating" : "";
  note.setAttribute("role", "status");
  note.textContent = said;
}

function poll(element) {
  const wait = Number(element.dataset.every);
  const again = async () => {
    await refresh(element);
    setTimeout(again, wait);
  };
  setTimeout(again, wait);
}

document.querySelectorAll("[data-poll]").forEach(poll);
document.querySelectorAll("[data-load]").forEach(async (element) => {
  const answer = await fetch(element.dataset.load).catch(() => null);
  element.textContent = answer && answer.ok ? await answer.text() : "unknown";
});

// A live watch: rows of a table, the newest first, no more than data-rows of them.
document.querySelectorAll("[data-watch]").forEach((body) => {
  const rows = Number(body.dataset.rows);
  const state = document.getElementById("watch-state");
  const source = new EventSource(body.dataset.watch);
  const cell = (row, text, name) => {
    const made = row.insertCell();
    made.textContent = text;
    made.className = name;
  };
  source.addEventListener("open", () => { state.textContent = "Watching."; });
  source.addEventListener("error", () => { state.textContent = "Connection lost; trying again."; });
  source.addEventListener("state", (event) => { state.textContent = JSON.parse(event.data); });
  source.addEventListener("over", (event) => {
    state.textContent = JSON.parse(event.data);
    source.close();
  });
  source.addEventListener("change", (event) => {
    const change = JSON.parse(event.data);
    const row = body.insertRow(0);
    cell(row, change.revision, "number");
    cell(row, change.kind, "");
    const link = document.createElement("a");
    link.href = change.link;
    link.textContent = change.key;
    row.insertCell().append(link);
    cell(row, change.size, "number");
    cell(row, change.value, "key");
    while (body.rows.length > rows) body.deleteRow(-1);
  });
});

// A backup to be verified is sent as it is, and not as a form: it may be large.
document.querySelectorAll("form[data-verify]").forEach((form) => {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = document.getElementById("verified");
    said.textContent = "Reading…";
    try {
      const answer = await fetch(form.dataset.verify, {
        method: "POST",
        headers: { "x-csrf-token": form.dataset.token, "content-type": "application/octet-stream" },
        body: form.elements.file.files[0],
      });
      said.textContent = await answer.text();
    } catch {
      said.textContent = "It couldn't be sent.";
    }
  });
});
