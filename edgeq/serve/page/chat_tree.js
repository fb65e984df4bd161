// A chat: {id, title, at, leaf, messages}. Its messages are a tree, as an edit or another answer begins a branch and
// keeps what was: each has the number of its `parent` (the one before it, where it says none; -1 begins the chat), and
// `leaf` is the last one of the branch that is shown. A message has a role ("user", "assistant", "tool") and a content;
// an answer also has what was `thought`, `calls` of tools and a `note`, what a tool said the call's `id`, a user's
// message `files`, each with a name and a text, and `images`, each with a name and a data: URL.

export const fresh = () => ({ id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, title: "", at: 0, leaf: -1, messages: [] });

export const parent = (chat, i) => chat.messages[i].parent ?? i - 1;

/** The numbers of the messages that are shown. */
export function path(chat) {
  const found = [];
  for (let i = chat.leaf; i >= 0; i = parent(chat, i)) found.unshift(i);
  return found;
}

/** The numbers of the messages that stand in one place, of one branch each. */
export const versions = (chat, i) => chat.messages.flatMap((_, j) => (parent(chat, j) === parent(chat, i) ? [j] : []));

/** Add a message after another one; its number. */
export function add(chat, message, after = chat.leaf) {
  chat.messages.push({ ...message, parent: after });
  chat.leaf = chat.messages.length - 1;
  return chat.leaf;
}

/** Show the branch of a message, to its latest end. */
export function turn(chat, i) {
  for (chat.leaf = i, i = chat.messages.length - 1; i > chat.leaf; i--) {
    if (parent(chat, i) !== chat.leaf) continue;
    [chat.leaf, i] = [i, chat.messages.length];
  }
}

/** What a chat is called: what it was named, or how it begins. */
export function title(chat) {
  const [first] = chat.messages;
  return chat.title || (first?.content || first?.files?.[0].name || first?.images?.[0].name || "").trim().slice(0, 80) || "Empty";
}

/** Texts of a message that a search looks at. */
export const texts = (message) => [
  message.content,
  message.thought ?? "",
  ...(message.calls ?? []).map((call) => `${call.name} ${call.arguments}`),
  ...(message.files ?? []).flatMap((file) => [file.name, file.text]),
  ...(message.images ?? []).map((image) => image.name),
];

/** Whether a value is a chat: what comes from files and from earlier pages may be anything. */
export function isChat(chat) {
  return typeof chat?.id === "string" && Array.isArray(chat.messages) && chat.messages.every(isMessage) &&
    optional(chat.title, "string") && optional(chat.at, "number") && within(chat.leaf, -1, chat.messages.length);
}

function isMessage(m, i) {
  return ["user", "assistant", "tool"].includes(m?.role) && typeof m.content === "string" && within(m.parent, -1, i) &&
    ["thought", "note", "id", "name"].every((key) => optional(m[key], "string")) &&
    listed(m.calls, "id", "name", "arguments") && listed(m.files, "name", "text") &&
    listed(m.images, "name", "url") && (m.images ?? []).every(({ url }) => IMAGE.test(url));
}

const IMAGE = /^data:image\/(png|jpeg|webp|gif|bmp);base64,[A-Za-z0-9+/=]*$/;
const optional = (value, kind) => value === undefined || typeof value === kind;
const within = (value, from, to) => value === undefined || (Number.isInteger(value) && value >= from && value < to);

// A list of objects with these texts, or nothing.
const listed = (value, ...keys) =>
  value === undefined || (Array.isArray(value) && value.every((one) => keys.every((key) => typeof one?.[key] === "string")));
