// A page to chat on: streams answers of /v1/chat/completions, keeps chats in this browser.

import * as attachments from "./attachments.js";
import * as list from "./chat_list.js";
import { openStore } from "./chat_store.js";
import { add, fresh, parent, path, title, turn, versions } from "./chat_tree.js";
import { $, say } from "./dom.js";
import { MessageView } from "./message_view.js";
import { chunks, context, readModels, sent } from "./server.js";
import * as settings from "./settings.js";

const PAINT = 50; // milliseconds between two looks of a growing answer, at least
const SAVE = 5000; // milliseconds after which a growing answer is kept as it is

const store = await openStore();
const others = "BroadcastChannel" in window ? new BroadcastChannel("edgeq") : null; // this page in other tabs

let chat = fresh();
let views = []; // of the messages that are shown: {index, view}
let asking = null; // the AbortController of the answer under way
let finished = Promise.resolve(); // with that answer, and it being kept
let editing = null; // the number of the message that is edited

// ---- Chats

let saving = Promise.resolve();

/** Keep a chat as it is now, behind what is being kept already. */
function keep(own) {
  own.at = Date.now();
  own.title = title(own);
  const copy = structuredClone(own);
  saving = saving.then(async () => {
    try {
      await store.write(copy);
      others?.postMessage(copy.id);
    } catch (error) {
      const full = error?.name === "QuotaExceededError";
      say(full ? "This browser has no room left for this chat: export what matters, and delete some." : `This chat cannot be kept: ${error?.message}`);
    }
    await list.refresh(chat.id);
  });
  return saving;
}

async function choose(id, name) {
  if (name !== undefined) {
    const own = id === chat.id ? chat : await store.read(id);
    if (own) own.title = name;
    return own && keep(own);
  }
  asking?.abort();
  await finished;
  await saving;
  const found = id === null ? fresh() : await store.read(id);
  if (!found) return list.refresh(chat.id);
  chat = found;
  stopEditing();
  openSide(false);
  showLog();
  await list.refresh(chat.id);
}

// ---- What is shown

/** Show the branch that is chosen; what stands there already stays. */
function showLog() {
  const wanted = path(chat);
  let same = 0;
  while (same < wanted.length && views[same]?.index === wanted[same] && views[same].view.message === chat.messages[wanted[same]]) same++;
  for (const { view } of views.splice(Math.max(0, same - 1))) view.node.remove(); // the last one may offer something else
  for (const index of wanted.slice(views.length)) {
    const view = new MessageView(chat.messages[index]);
    views.push({ index, view });
    $("log").append(view.node);
    view.show(!asking || index !== chat.leaf);
    offer(view, index);
  }
  atEnd = true;
  toEnd();
}

function offer(view, index) {
  const { role, content, calls, note, failed } = chat.messages[index];
  const last = index === chat.leaf;
  if (asking && last) return view.offer([]);
  const acts = [];
  if (role === "user") acts.push(["Edit", () => edit(index)]);
  if (role === "assistant") acts.push(["Again", () => answer(parent(chat, index))]);
  if (role === "assistant" && last && content && !calls?.length && (failed || /^(stopped|cut|not)/.test(note))) {
    acts.push(["Go on", () => answer(parent(chat, index), index)]);
  }
  const all = versions(chat, index);
  if (all.length > 1) {
    const at = all.indexOf(index);
    const to = (i) => () => turnTo(all[i]);
    acts.push(["‹", to(at - 1), "The version before"], [`${at + 1}/${all.length}`], ["›", to(at + 1), "The next version"]);
  }
  view.offer(acts);
  if (last && calls?.length) {
    view.askResults((texts) => {
      if (asking) return;
      calls.forEach(({ id, name }, i) => add(chat, { role: "tool", id, name, content: texts[i] }));
      answer();
    });
  }
}

function turnTo(index) {
  if (asking || index === undefined) return;
  const { scrollTop } = $("log");
  turn(chat, index);
  showLog();
  $("log").scrollTop = scrollTop;
  keep(chat);
}

function edit(index) {
  if (asking) return;
  editing = index;
  const { content, files, images } = chat.messages[index];
  $("text").value = content;
  attachments.put([...(images ?? []), ...(files ?? [])]);
  $("editing").hidden = false;
  fit();
  $("text").focus();
}

function stopEditing() {
  if (editing === null) return;
  editing = null;
  $("editing").hidden = true;
  $("text").value = "";
  attachments.put([]);
  fit();
}

// ---- Asking

/** Answer the message with the number `after`; or go on with the answer `begun`, which was cut off. */
function answer(after = chat.leaf, begun = null) {
  if (!asking) finished = give(after, begun);
}

async function give(after, begun) {
  const own = chat; // whichever is looked at meanwhile
  let request;
  let unread = "";
  try {
    request = settings.asked();
  } catch (error) {
    unread = error.message;
  }
  own.leaf = begun ?? after;
  const talk = path(own).map((index) => sent(own.messages[index]));
  if ($("system").value.trim()) talk.unshift({ role: "system", content: $("system").value });
  const index = begun ?? add(own, { role: "assistant", content: "" }, after);
  const message = own.messages[index];
  Object.assign(message, { note: "not finished: the page was left", failed: false });
  asking = new AbortController();
  busy(true);
  showLog();
  keep(own);
  try {
    if (unread) throw new Error(unread);
    say("Reading the prompt …");
    request = { ...request, messages: talk, stream: true, stream_options: { include_usage: true }, return_progress: true };
    message.note = await stream(request, own, message);
  } catch (error) {
    const stopped = error.name === "AbortError";
    message.note = stopped ? "stopped" : error instanceof TypeError ? "The server is not there." : error.message;
    message.failed = !stopped;
  }
  if (message.calls) message.calls = message.calls.filter((call) => isJson(call.arguments)); // less what was cut off
  say("");
  asking = null;
  busy(false);
  if (chat === own) showEnd(own, index);
  await keep(own);
}

// Read an answer into its message, and show it as it grows. What is to be said of it at its end.
async function stream(request, own, message) {
  const began = performance.now();
  let first = 0, usage = null, timings = null, cut = "", saved = began;
  const paint = painter(own, message);
  const calls = message.calls?.length ?? 0;
  for await (const chunk of chunks(request, asking.signal)) {
    const choice = chunk.choices?.[0];
    const { content, reasoning_content: thought, tool_calls: parts } = choice?.delta ?? {};
    if (chunk.prompt_progress) far(chunk.prompt_progress);
    for (const part of parts ?? []) {
      message.calls ??= [];
      const call = (message.calls[calls + part.index] ??= { id: part.id ?? "", name: "", arguments: "" });
      call.name += part.function?.name ?? "";
      call.arguments += part.function?.arguments ?? "";
    }
    if (thought) message.thought = (message.thought ?? "") + thought;
    if (content) message.content += content;
    if (content || thought || parts) {
      first ||= performance.now() - began;
      far(null);
      say(parts ? "Calling …" : content ? "Writing …" : "Thinking …");
      paint();
      if (performance.now() - saved > SAVE) {
        saved = performance.now();
        keep(own);
      }
    }
    timings = chunk.timings ?? timings;
    usage = chunk.usage ?? usage;
    if (choice?.finish_reason === "length") cut = "cut at the limit of tokens";
  }
  return [cut, note(usage, timings, first)].filter(Boolean).join(" · ");
}

// What shows an answer anew, at most every 50 ms, and less often where that takes long.
function painter(own, message) {
  let due = false, next = 0;
  return () => {
    if (due) return;
    due = true;
    setTimeout(() => {
      due = false;
      const view = views.at(-1)?.view;
      if (!asking || chat !== own || view?.message !== message) return;
      const before = performance.now();
      view.show(false);
      toEnd();
      const now = performance.now();
      next = now + Math.max(PAINT, 4 * (now - before));
    }, Math.max(0, next - performance.now()));
  };
}

// Stay at the end of the log, if that is where one is.
let atEnd = true;
const toEnd = () => { if (atEnd) $("log").scrollTop = $("log").scrollHeight; };

function showEnd(own, index) {
  const shown = views.at(-1);
  if (shown?.index !== index) return showLog();
  shown.view.show(true);
  offer(shown.view, index);
  toEnd();
}

function isJson(text) {
  try {
    return JSON.parse(text) !== undefined;
  } catch {
    return false;
  }
}

function note(usage, timings, first) {
  if (!usage || !timings) return "";
  const full = context() ? ` of ${context()}` : "";
  const read = timings.prompt_n && timings.prompt_ms > 1000 ? `prompt ${timings.prompt_per_second.toFixed(0)} tokens/s` : "";
  const speed = timings.predicted_per_second ? `${timings.predicted_per_second.toFixed(1)} tokens/s` : "";
  return [`${usage.total_tokens}${full} tokens`, speed, `first after ${(first / 1000).toFixed(2)} s`, read].filter(Boolean).join(" · ");
}

function far(progress) {
  $("far").hidden = !progress;
  if (!progress) return;
  Object.assign($("far"), { max: progress.total, value: progress.processed });
  say(`Reading the prompt: ${progress.processed} of ${progress.total} tokens`);
}

function busy(yes) {
  $("send").hidden = yes;
  $("stop").hidden = !yes;
  $("log").setAttribute("aria-busy", String(yes));
  if (!yes) far(null);
}

// ---- The page's own life

function fit() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`; // and its borders
}

function openSide(yes) {
  $("side").classList.toggle("open", yes);
  $("menu").setAttribute("aria-expanded", String(yes));
}

function openSettings(yes) {
  $("settings").hidden = !yes;
  $("set").setAttribute("aria-expanded", String(yes));
}

const useModels = (names) => {
  const before = $("model").value || settings.recall("model");
  $("model").replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(before)) $("model").value = before;
  attachments.again();
};

$("ask").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (asking) return;
  const after = editing === null ? chat.leaf : parent(chat, editing);
  const more = attachments.taken();
  if (!text && !more.files && !more.images) return;
  editing = null;
  $("editing").hidden = true;
  $("text").value = "";
  fit();
  answer(add(chat, { role: "user", content: text, ...more }, after));
};
$("text").oninput = fit;
$("text").onkeydown = (event) => {
  const enters = matchMedia("(pointer: fine)").matches || event.ctrlKey || event.metaKey; // a phone has a button for it
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && enters) {
    event.preventDefault();
    $("ask").requestSubmit();
  } else if (event.key === "ArrowUp" && !$("text").value && editing === null) {
    const mine = path(chat).filter((index) => chat.messages[index].role === "user").at(-1);
    if (mine !== undefined) {
      event.preventDefault();
      edit(mine);
    }
  }
};
document.onkeydown = (event) => {
  if (event.key === "k" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    openSide(true);
    $("find").select();
  } else if (event.key === "Escape") {
    if (asking) asking.abort();
    else if (editing !== null) stopEditing();
    else if ($("side").classList.contains("open")) openSide(false);
    else openSettings(false);
  }
};
$("log").onscroll = () => { atEnd = $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 80; };
new ResizeObserver(toEnd).observe($("log"));
$("stop").onclick = () => asking?.abort();
$("cancel").onclick = () => { stopEditing(); $("text").focus(); };
$("new").onclick = async () => { await choose(null); $("text").focus(); };
$("menu").onclick = () => openSide(!$("side").classList.contains("open"));
$("main").addEventListener("click", (event) => { if (!event.target.closest("#menu")) openSide(false); });
$("set").onclick = () => openSettings($("settings").hidden);
$("model").addEventListener("change", () => settings.remember("model", $("model").value));
window.onpagehide = () => { if (asking) keep(chat); };
if (others) others.onmessage = () => list.refresh(chat.id);

settings.begin((name) => { if (name === "key") readModels(useModels); });
attachments.begin();
list.begin(store, choose);
$("lost").hidden = store.lasting;
await list.refresh(chat.id);
await choose(list.latest() ?? null);
readModels(useModels);
