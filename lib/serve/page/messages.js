// One message of a conversation, with its sources, what went wrong, and what can be done with it.

import { copied, element, markdown } from "./render.js";

// Args: act: what is done when the reader opens a passage, asks again (null: not for this one), edits, enters a key.
export function messageView(message, act) {
  const answer = message.role === "assistant";
  const block = element("article", { className: message.role });
  block.append(element("h2", { className: "hidden" }, answer ? "Answer" : "Question"));
  const text = element("div", { className: "text" });
  block.append(text);
  if (answer) {
    text.append(markdown(message.content, message.passages, act.open));
    if (message.state === "writing" && !message.content) text.append(element("span", { className: "waiting" }, "…"));
    if (message.passages?.length) block.append(sources(message, act.open));
    if (message.state === "stopped") block.append(element("p", { className: "small" }, "Stopped."));
    if (message.finish === "length") {
      block.append(element("p", { className: "small" }, "Cut off at the longest answer (see Settings), or where the context is full."));
    }
    if (message.left) {
      block.append(element("p", { className: "small" }, `Without the oldest ${message.left} messages: the context is full.`));
    }
    if (message.error) block.append(failure(message, act.enterKey));
  } else {
    text.textContent = message.content;
  }
  if (message.state !== "writing") block.append(actions(message, act));
  return block;
}

function sources(message, open) {
  const list = element("ul", { className: "sources" });
  list.setAttribute("aria-label", "Sources");
  for (const passage of message.passages) {
    const cited = message.cited?.includes(passage.id);
    const name = passage.heading || passage.document;
    const button = element("button", { type: "button", title: passage.document },
      element("b", {}, String(passage.number)), ` ${name}`);
    if (cited) button.classList.add("cited");
    button.setAttribute("aria-label", `Source ${passage.number}${cited ? ", cited" : ""}: ${name}`);
    button.addEventListener("click", () => open(passage));
    list.append(element("li", {}, button));
  }
  return list;
}

function failure(message, enterKey) {
  const block = element("p", { className: "error" }, message.error.message);
  block.setAttribute("role", "alert");
  if (message.error.status === 401) {
    const button = element("button", { type: "button" }, "Enter a key");
    button.addEventListener("click", enterKey);
    block.append(" ", button);
  }
  return block;
}

function actions(message, act) {
  const bar = element("div", { className: "actions" });
  const add = (label, does) => {
    const button = element("button", { type: "button", className: "plain" }, label);
    button.addEventListener("click", () => does(button));
    bar.append(button);
  };
  if (message.content) add("Copy", (button) => copied(button, message.content));
  if (message.role === "assistant" && act.retry) add("Retry", act.retry);
  if (message.role === "user") add("Edit", act.edit);
  if (message.usage?.completion_tokens) {
    const rate = message.seconds ? `, ${(message.usage.completion_tokens / message.seconds).toFixed(1)} a second` : "";
    bar.append(element("span", { className: "small" }, `${message.usage.completion_tokens} tokens${rate}`));
  }
  return bar;
}
