// The list of chats: search, names, deletion, export and import.

import { exported, imported, search } from "./chat_store.js";
import { $, button, make, say } from "./dom.js";

let store;
let heads = [];
let current = "";
let choose = () => {};
let searches = 0;

/** Show the store's chats; `chosen` hears which one is wanted, null for a new one. */
export function begin(kept, chosen) {
  [store, choose] = [kept, chosen];
  let due;
  $("find").oninput = () => { clearTimeout(due); due = setTimeout(show, 150); };
  $("export").onclick = save;
  $("import").onclick = () => $("file").click();
  $("file").onchange = take;
}

/** Read the list again. The chat that is shown is marked. */
export async function refresh(id) {
  current = id;
  heads = (await store.heads()).sort((a, b) => b.at - a.at);
  await show();
}

/** The latest chat's id. */
export const latest = () => heads[0]?.id;

async function show() {
  const number = ++searches;
  const text = $("find").value.trim();
  const found = text ? await search(store, heads, text, () => number === searches) : null;
  if (number !== searches) return;
  const rows = heads.filter(({ id }) => !found || found.has(id)).map((head) => row(head, found?.get(head.id)));
  if (!rows.length && text) rows.push(make("p", "No chat has this.", { className: "faint" }));
  $("chats").replaceChildren(...rows);
}

function row(head, around) {
  const made = make("div", undefined, { className: "chat" });
  const open = button("", () => choose(head.id), undefined, "open");
  open.append(make("span", head.title, { title: head.title }));
  if (around) open.append(make("small", around));
  if (head.id === current) made.setAttribute("aria-current", "true");
  made.append(open, button("✎", () => rename(head), `Rename ${head.title}`), button("×", () => drop(head), `Delete ${head.title}`));
  return made;
}

async function rename(head) {
  const name = prompt("What is this chat called?", head.title)?.trim();
  if (name) choose(head.id, name.slice(0, 80));
}

async function drop(head) {
  if (!confirm(`Delete "${head.title}"?`)) return;
  if (head.id === current) await choose(heads.find(({ id }) => id !== head.id)?.id ?? null); // an answer under way ends
  await store.remove(head.id);
  await refresh(current);
}

async function save() {
  const url = URL.createObjectURL(await exported(store));
  make("a", undefined, { href: url, download: `edgeq-chats-${new Date().toISOString().slice(0, 10)}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

async function take() {
  const [file] = $("file").files;
  try {
    const { taken, known, unreadable } = await imported(store, await file.text());
    const parts = [`${taken} chats imported`, known && `${known} were here already`, unreadable && `${unreadable} could not be read`];
    say(parts.filter(Boolean).join(", "));
  } catch (error) {
    say(error.name === "QuotaExceededError" ? "This browser has no room for these chats." : `${file.name} holds no chats.`);
  }
  $("file").value = "";
  await refresh(current);
}
