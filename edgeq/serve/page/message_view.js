// Messages as they are shown.

import { button, copy, folded, make, picture } from "./dom.js";
import { Markdown } from "./markdown.js";

const UNFOLDED = 50000; // characters of a file that are shown

/** A message on the page. `show` is called again as an answer grows; what was unfolded stays so. */
export class MessageView {
  #body = make("div", undefined, { className: "body" });
  #text = make("div", undefined, { className: "text" });
  #markdown = new Markdown(this.#text);
  #tools = make("div", undefined, { className: "tools" });
  #thought;
  #calls = [];

  constructor(message) {
    this.message = message;
    this.node = make("article", undefined, { className: message.role });
    this.node.append(this.#body, this.#tools);
    if (message.role === "tool") this.#body.append(folded(`${message.name ?? "The tool"} said`, message.content, false, "call"));
    else if (message.role === "user") this.#body.append(message.content, ...(message.images ?? []).map(picture), ...(message.files ?? []).map((file) => folded(file.name, beginning(file.text), false, "file")));
    else this.#body.append(this.#text);
  }

  /** The text as it is now; `ended` where no more comes. */
  show(ended) {
    const { role, content, thought, calls } = this.message;
    if (role !== "assistant") return;
    if (thought) {
      if (!this.#thought) this.#body.prepend((this.#thought = folded("", "", false, "thought")));
      this.#thought.firstChild.textContent = ended || content ? "Thought" : "Thinking …";
      this.#thought.lastChild.textContent = thought;
    }
    this.#markdown.show(content, ended);
    while (this.#calls.length > (calls?.length ?? 0)) this.#calls.pop().remove();
    (calls ?? []).forEach((call, i) => {
      if (!this.#calls[i]) this.#body.append((this.#calls[i] = folded("", "", false, "call")));
      this.#calls[i].firstChild.textContent = `Calls ${call.name}`;
      this.#calls[i].lastChild.textContent = ended ? pretty(call.arguments) : call.arguments;
    });
  }

  /** What can be done with it: [what a button shows, what it does, what it is called] of each, and what is said of it. */
  offer(acts) {
    const { content, note, failed } = this.message;
    const parts = acts.map(([text, act, label]) => (act ? button(text, act, label) : make("span", text)));
    if (content) parts.unshift(button("Copy", (event) => copy(content, event.currentTarget)));
    if (note) parts.push(make("span", note, { className: failed ? "note failed" : "note" }));
    this.#tools.replaceChildren(...parts);
  }

  /** Ask what the tools say, as the page runs none: `given` hears the texts. */
  askResults(given) {
    const form = make("form", undefined, { className: "results" });
    const { calls } = this.message;
    const fields = calls.map(({ name }) => {
      const field = make("textarea", undefined, { rows: 1, required: true, placeholder: `What ${name} says` });
      field.setAttribute("aria-label", `What ${name} says`);
      return field;
    });
    form.append(...fields, make("button", calls.length > 1 ? "Send results" : "Send result", { type: "submit" }));
    form.onsubmit = (event) => {
      event.preventDefault();
      given(fields.map((field) => field.value));
    };
    this.node.append(form);
  }
}

function beginning(text) {
  return text.length <= UNFOLDED ? text : `${text.slice(0, UNFOLDED)}\n… and ${text.length - UNFOLDED} characters more`;
}

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 1);
  } catch {
    return json;
  }
}
