// Chats, kept in this browser: in IndexedDB, or where that is refused in memory, until the page is left. Heads (id,
// title, time) lie apart from messages, so that a list of chats reads no more than it shows.

import { isChat, texts, title } from "./chat_tree.js";

const EARLIER = "edgeq.chat."; // keys of localStorage under which an earlier page kept chats
const PATIENCE = 5000; // milliseconds for opening: some browsers never answer

const answered = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
const ended = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("aborted"));
  });

const headOf = ({ id, title, at }) => ({ id, title, at });

/** Chats in IndexedDB. */
class Kept {
  lasting = true;
  #db;

  constructor(db) {
    this.#db = db;
    db.onversionchange = () => db.close();
  }

  heads() {
    return answered(this.#db.transaction("heads").objectStore("heads").getAll());
  }

  async read(id) {
    const both = this.#db.transaction(["heads", "messages"]);
    const [head, body] = await Promise.all(["heads", "messages"].map((name) => answered(both.objectStore(name).get(id))));
    return head && body && { ...head, ...body };
  }

  async write(chat) {
    const both = this.#db.transaction(["heads", "messages"], "readwrite");
    const done = ended(both);
    both.objectStore("heads").put(headOf(chat));
    both.objectStore("messages").put({ id: chat.id, leaf: chat.leaf, messages: chat.messages });
    await done;
  }

  async remove(id) {
    const both = this.#db.transaction(["heads", "messages"], "readwrite");
    const done = ended(both);
    for (const name of ["heads", "messages"]) both.objectStore(name).delete(id);
    await done;
  }

  /** Look at {id, messages} of all chats, one after the other, while `wanted` says so. */
  each(look, wanted = () => true) {
    return new Promise((resolve, reject) => {
      const request = this.#db.transaction("messages").objectStore("messages").openCursor();
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const cursor = request.result;
        if (!cursor || !wanted()) return resolve();
        look(cursor.value);
        cursor.continue();
      };
    });
  }
}

/** Chats in memory. */
class Passing {
  lasting = false;
  #chats = new Map();

  async heads() {
    return [...this.#chats.values()].map(headOf);
  }

  async read(id) {
    return structuredClone(this.#chats.get(id));
  }

  async write(chat) {
    this.#chats.set(chat.id, structuredClone(chat));
  }

  async remove(id) {
    this.#chats.delete(id);
  }

  async each(look) {
    for (const { id, leaf, messages } of this.#chats.values()) look({ id, leaf, messages });
  }
}

function opened() {
  return new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error("no answer")), PATIENCE);
    const request = indexedDB.open("edgeq", 1); // which may throw
    request.onupgradeneeded = () => {
      for (const name of ["heads", "messages"]) request.result.createObjectStore(name, { keyPath: "id" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = request.onblocked = () => reject(request.error ?? new Error("blocked"));
  });
}

/** The store, with what an earlier page left; that is taken out of localStorage once it is kept. */
export async function openStore() {
  let store;
  try {
    store = new Kept(await opened());
    await store.heads();
  } catch {
    store = new Passing();
  }
  for (const [key, chat] of earlier()) {
    try {
      if (!(await store.read(chat.id))) await store.write(complete(chat));
      if (store.lasting) localStorage.removeItem(key);
    } catch { /* it stays where it is */ }
  }
  return store;
}

function earlier() {
  const found = [];
  try {
    for (const key of Object.keys(localStorage).filter((key) => key.startsWith(EARLIER))) {
      try {
        const chat = JSON.parse(localStorage.getItem(key));
        if (isChat(chat)) found.push([key, chat]);
      } catch { /* what cannot be read is none */ }
    }
  } catch { /* localStorage is refused, too */ }
  return found;
}

const complete = (chat) => ({ ...chat, at: chat.at ?? Date.now(), title: title(chat), leaf: chat.leaf ?? chat.messages.length - 1 });

/** Chats with a text, and where it stands there: id -> what is around it. */
export async function search(store, heads, text, wanted) {
  const found = new Map();
  const sought = text.toLowerCase();
  const titles = new Map(heads.map((head) => [head.id, head.title]));
  await store.each(({ id, messages }) => {
    if (!titles.has(id)) return;
    if (titles.get(id).toLowerCase().includes(sought)) found.set(id, "");
    for (const one of messages.flatMap(texts)) {
      const at = one.toLowerCase().indexOf(sought);
      if (at < 0) continue;
      const from = Math.max(0, at - 24);
      found.set(id, (from ? "…" : "") + one.slice(from, at + sought.length + 60));
      return;
    }
  }, wanted);
  return found;
}

/** All chats as a file of JSON, the latest first. */
export async function exported(store) {
  const texts = new Map();
  const heads = (await store.heads()).sort((a, b) => b.at - a.at);
  const byId = new Map(heads.map((head) => [head.id, head]));
  await store.each((body) => { if (byId.has(body.id)) texts.set(body.id, JSON.stringify({ ...byId.get(body.id), ...body }, null, 1)); });
  const parts = heads.flatMap(({ id }) => (texts.has(id) ? [texts.get(id), ",\n"] : []));
  return new Blob(["[", ...parts.slice(0, -1), "]\n"], { type: "application/json" });
}

/** Keep the chats of a file that was exported, those apart that are here as they are there or newer. Counts of chats:
 * taken in, here already, not readable. Throws for a file that is no list. */
export async function imported(store, text) {
  const given = JSON.parse(text);
  if (!Array.isArray(given)) throw new Error("no list");
  const chats = given.filter(isChat).map(complete);
  const here = new Map((await store.heads()).map((head) => [head.id, head.at]));
  const newer = chats.filter((chat) => !(here.get(chat.id) >= chat.at));
  for (const chat of newer) await store.write(chat);
  return { taken: newer.length, known: chats.length - newer.length, unreadable: given.length - chats.length };
}
