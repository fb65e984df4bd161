// Elements, and what is done with them everywhere.

export const $ = (id) => document.getElementById(id);

/** An element with a text and properties. */
export const make = (tag, text, more = {}) =>
  Object.assign(document.createElement(tag), text === undefined ? {} : { textContent: text }, more);

/** A button; `label` is what it is called where its text is a sign. */
export function button(text, act, label, className = "") {
  const made = make("button", text, { type: "button", onclick: act, className });
  if (label) {
    made.title = label;
    made.setAttribute("aria-label", label);
  }
  return made;
}

/** A text that a click unfolds. */
export function folded(name, text, open, className) {
  const fold = make("details", undefined, { open, className });
  fold.append(make("summary", name), make("span", text));
  return fold;
}

/** An image that a message holds. */
export const picture = ({ name, url }) => make("img", undefined, { src: url, alt: name, title: name });

/** Say what goes on, beside the model's name. */
export function say(text) {
  if ($("state").textContent !== text) $("state").textContent = text;
}

/** Copy a text; the button says so for a moment. A page that came over plain HTTP has no clipboard but this old one. */
export async function copy(text, said) {
  const before = said.textContent;
  let copied = false;
  try {
    await navigator.clipboard.writeText(text);
    copied = true;
  } catch {
    const held = make("textarea", undefined, { value: text, className: "unseen" });
    document.body.append(held);
    held.select();
    copied = document.execCommand("copy");
    held.remove();
    said.focus();
  }
  said.textContent = copied ? "Copied" : "Not copied";
  setTimeout(() => { said.textContent = before; }, 1500);
}
