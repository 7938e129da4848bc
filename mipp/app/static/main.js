// The page: which part is shown, who is open, the servers.

import { end, get, onEnd, openSession, post, tried, work } from "./api.js";
import { $, el, fill, say, told } from "./dom.js";
import { startOwner } from "./owner.js";
import { resume, startSearch } from "./search.js";

let state = null, asking = 0;

function show(page) {
  for (const button of document.querySelectorAll("[data-page]")) {
    const here = button.dataset.page === page;
    if (here) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
    $(`page-${button.dataset.page}`).hidden = !here;
  }
  sessionStorage.setItem("mipp-page", page);
}

/** Buttons that open the parties of one kind; one without a passphrase that is alone is opened by itself. */
async function parties(kind, opened) {
  const place = $(`${kind}-party`);
  const here = state.parties.filter((party) => party.kind === kind);
  if (!here.length) {
    const made = kind === "user" ? "mipp user create NAME" : "mipp owner create NAME";
    fill(place, el("p", { class: "note" }, `No ${kind} has a key file here. Make one with: ${made}`));
    return;
  }
  const open = async (party, passphrase) => {
    const done = await tried(async () => {
      await work(`Opening ${party.name}`, () => post("/api/open", { kind, name: party.name, passphrase }));
      return true;
    });
    if (!done) return;
    party.open = true;
    draw(party);
    await opened(party.name, state);
  };
  const draw = (current) => fill(place, el("form", { class: "controls" },
    ...here.map((party) => el("button", {
      type: "button", "aria-pressed": String(party === current), class: party === current ? "current" : null,
      click: () => (party.open ? (draw(party), tried(() => opened(party.name, state)))
        : party.sealed ? ask(party) : open(party)),
    }, party.open ? "" : "Open ", told(party.name), !party.open && party.sealed ? " (passphrase)" : ""))));
  const ask = (party) => {
    const field = el("input", { type: "password", id: `${kind}-passphrase`, autocomplete: "off", required: true });
    draw(null);
    place.append(el("form", { class: "controls", submit: (event) => {
      event.preventDefault();
      const given = field.value;
      field.value = "";
      open(party, given);
    } }, el("label", {}, "Passphrase of ", told(party.name), " ", field), el("button", { type: "submit" }, "Open")));
    field.focus();
  };
  const already = here.find((party) => party.open);
  draw(already || null);
  if (already) await opened(already.name, state);
  else if (here.length === 1 && !here[0].sealed) await open(here[0]);
}

async function askServers() {
  const job = await tried(() => work("Asking the servers", () => post("/api/servers")));
  if (!job) return;
  fill($("servers"), ...job.result.map((server) => {
    const how = !server.ready ? "not ready" : server.changes ? "ready" : "ready, takes no changes yet";
    return el("li", {}, el("strong", {}, `${server.number} `, told(server.name)), ` ${how} `, told(server.url),
      ...server.reasons.map((reason) => el("div", { class: "warning" }, told(reason))));
  }));
}

async function close() {
  if (!confirm("End the program on this machine? It forgets all searches and images of this session.")) return;
  if (await tried(() => post("/api/close"))) end("Closed. The program has ended; this tab can be closed.");
}

onEnd((text) => {
  state = null;
  clearInterval(asking);
  document.body.replaceChildren(el("p", { class: "panel", role: "status", id: "status" }, text));
  delete document.body.dataset.ready;
});

async function begin() {
  try {
    await openSession();
    state = await get("/api/state");
  } catch (error) {
    say(error.message, true);
    for (const section of document.querySelectorAll("main > section")) section.hidden = true;
    return;
  }
  for (const button of document.querySelectorAll("[data-page]")) {
    button.addEventListener("click", () => show(button.dataset.page));
  }
  $("close").addEventListener("click", close);
  $("ask-servers").addEventListener("click", askServers);
  show(sessionStorage.getItem("mipp-page") || "search");
  fill($("deployment"), `Deployment ${state.deployment}: ${state.descriptor || "vectors"}, ${state.metric}, `
    + `${state.connected ? "servers over a network" : "all servers in one folder"}.`,
    ...state.notes.map((note) => el("span", { class: "warning" }, told(note))));
  await parties("user", startSearch);
  await parties("owner", startOwner);
  await resume(state);
  document.body.dataset.ready = "yes";
  // the program ends when no page asks any more; a page whose program has ended notices here, too
  asking = setInterval(() => get("/api/state").catch(() => {}), 60_000);
}

addEventListener("unhandledrejection", (event) => say(String(event.reason?.message || event.reason), true));
begin();
