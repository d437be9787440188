// The page: one conversation at a time, streamed, kept in the browser.

import { ApiError, chat, listModels } from "./api.js";
import { openDocument, openPassage } from "./documents.js";
import { messageView } from "./messages.js";
import { element } from "./render.js";
import * as store from "./store.js";

const $ = (id) => document.getElementById(id);
const settings = store.settings;
let models = [];
let current = store.conversations[0] ?? store.begin();
let running = null; // AbortController of the answer that is being written

// -- messages

function show() {
  $("messages").replaceChildren(...current.messages.map(view));
  $("welcome").hidden = current.messages.length > 0;
  showConversations();
  toEnd();
}

const view = (message, place) =>
  messageView(message, {
    open: openPassage,
    retry: place === current.messages.length - 1 ? retry : null,
    edit: () => edit(place),
    enterKey: () => openSettings("key"),
  });

function redraw(message) {
  const place = current.messages.indexOf(message);
  const old = $("messages").children[place];
  if (!old) return; // another conversation is shown
  const following = atEnd();
  old.replaceWith(view(message, place));
  if (following) toEnd();
}

// -- asking

async function send(question) {
  if (!current.messages.length) current.title = question.slice(0, 80);
  current.messages.push({ role: "user", content: question });
  store.touch(current);
  await answer();
}

async function answer() {
  const conversation = current;
  const message = { role: "assistant", content: "", state: "writing", model: settings.model };
  conversation.messages.push(message);
  show();
  running = new AbortController();
  setBusy(true);
  const draw = drawer(message);
  const began = performance.now();
  try {
    await write(conversation, message, draw, running.signal);
    message.state = "done";
  } catch (error) {
    message.state = error.name === "AbortError" ? "stopped" : "failed";
    if (message.state === "failed") {
      if (!(error instanceof ApiError)) console.error(error);
      message.error = { status: error.status ?? 0, message: error.message };
    }
  }
  message.seconds = (performance.now() - began) / 1000;
  running = null;
  setBusy(false);
  draw.end();
  persist();
  showConversations();
  if (conversation === current && !matchMedia("(pointer: coarse)").matches) $("question").focus();
}

// Where the conversation no longer fits into the model's context, its oldest turns are left out.
async function write(conversation, message, draw, signal) {
  const said = conversation.messages
    .filter((one) => one !== message && !(one.role === "assistant" && !one.content))
    .map(({ role, content }) => ({ role, content }));
  for (message.left = 0; ; message.left += 2) {
    const messages = said.slice(message.left);
    if (settings.system.trim()) messages.unshift({ role: "system", content: settings.system });
    const body = {
      model: message.model, messages, temperature: settings.temperature, top_p: settings.top_p,
      max_tokens: settings.max_tokens, ...(settings.seed === "" ? {} : { seed: Number(settings.seed) }),
    };
    try {
      for await (const chunk of chat(body, store.key.get(), signal)) {
        take(chunk, message);
        draw();
      }
      return;
    } catch (error) {
      const tooLong = error.code === "context_length_exceeded" && said.length - message.left > 2;
      if (!tooLong) {
        if (error.code === "context_length_exceeded") message.left = 0;
        throw error;
      }
    }
  }
}

function take(chunk, message) {
  if (chunk.passages) message.passages = chunk.passages;
  if (chunk.usage) message.usage = chunk.usage;
  const choice = chunk.choices[0];
  if (!choice) return;
  message.content += choice.delta.content ?? "";
  const links = choice.delta.annotations?.map((one) => new URL(one.url_citation.url).searchParams);
  if (links) message.cited = links.map((link) => link.get("passage"));
  if (choice.finish_reason) message.finish = choice.finish_reason;
}

// At most one drawing a frame, and a copy kept every second: a reload in the middle loses no more.
function drawer(message) {
  let frame = 0, saved = performance.now();
  const draw = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      redraw(message);
      if (performance.now() - saved > 1000) {
        saved = performance.now();
        persist();
      }
    });
  };
  draw.end = () => {
    cancelAnimationFrame(frame);
    redraw(message);
  };
  return draw;
}

function retry() {
  if (running) return;
  current.messages.pop();
  answer();
}

function edit(place) {
  if (running) return;
  $("question").value = current.messages[place].content;
  current.messages.length = place;
  show();
  grow();
  $("question").focus();
}

function persist() {
  try {
    store.save();
  } catch {
    console.warn("The browser has no room for this conversation: it is lost when the page is closed.");
  }
}

// -- conversations

function showConversations() {
  $("conversations").replaceChildren(...store.conversations.filter((one) => one.messages.length).map((one) => {
    const open = element("button", { type: "button", className: "plain title" }, one.title);
    if (one === current) open.setAttribute("aria-current", "true");
    open.addEventListener("click", () => choose(one));
    const remove = element("button", { type: "button", className: "plain remove" }, "✕");
    remove.setAttribute("aria-label", `Delete: ${one.title}`);
    remove.addEventListener("click", () => discard(one));
    return element("li", {}, open, remove);
  }));
}

function choose(conversation) {
  if (conversation !== current) running?.abort();
  current = conversation;
  setSidebar(false);
  show();
  $("question").focus();
}

function discard(conversation) {
  if (conversation === current) {
    running?.abort();
    current = store.begin();
  }
  store.remove(conversation.id);
  show();
}

// -- settings and the rest of the page

function openSettings(focus) {
  for (const name of ["temperature", "top_p", "max_tokens", "seed", "system"]) $(name).value = settings[name];
  $("key").value = store.key.get();
  showOutputs();
  $("settings").showModal();
  if (focus) $(focus).focus();
}

function readSettings() {
  const number = (name, otherwise) => ($(name).value === "" || !$(name).validity.valid ? otherwise : Number($(name).value));
  settings.temperature = number("temperature", 0);
  settings.top_p = number("top_p", 1);
  settings.max_tokens = number("max_tokens", store.DEFAULTS.max_tokens);
  settings.seed = number("seed", "");
  settings.system = $("system").value;
  const before = store.key.get();
  store.key.set($("key").value.trim());
  store.saveSettings();
  if (before !== store.key.get() || !models.length) loadModels();
}

function showOutputs() {
  for (const output of document.querySelectorAll("output")) output.textContent = $(output.htmlFor.value).value;
}

async function loadModels() {
  const notice = $("notice");
  notice.hidden = true;
  try {
    models = await listModels(store.key.get());
  } catch (error) {
    models = [];
    notice.replaceChildren(error.message);
    if (error.status === 401) {
      const button = element("button", { type: "button" }, "Enter a key");
      button.addEventListener("click", () => openSettings("key"));
      notice.append(" ", button);
    }
    notice.hidden = false;
  }
  if (models.length && !models.includes(settings.model)) settings.model = models.at(-1);
  $("models").replaceChildren($("models").querySelector("legend"), ...models.map((name) => {
    const input = element("input", { type: "radio", name: "model", value: name, checked: name === settings.model });
    input.addEventListener("change", () => {
      settings.model = name;
      store.saveSettings();
      welcomeText();
    });
    return element("label", { title: name }, input, element("span", {}, name));
  }));
  if (models.length) welcomeText();
}

function welcomeText() {
  $("welcome-text").textContent = settings.model.endsWith("-docs")
    ? `${settings.model} looks into your documents first, and cites them.`
    : `${settings.model} answers from what it has learnt, without looking anything up.`;
}

function setBusy(busy) {
  $("stop").hidden = !busy;
  $("send").hidden = busy;
  $("messages").setAttribute("aria-busy", String(busy));
}

function setSidebar(open) {
  document.body.classList.toggle("sidebar", open);
  $("open-sidebar").setAttribute("aria-expanded", String(open));
  if (open) $("new").focus();
}

function setTheme() {
  if (settings.theme) document.documentElement.dataset.theme = settings.theme;
}

const atEnd = () => $("scroll").scrollHeight - $("scroll").scrollTop - $("scroll").clientHeight < 60;
const toEnd = () => { $("scroll").scrollTop = $("scroll").scrollHeight; };

function grow() {
  const field = $("question");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, innerHeight * 0.4)}px`;
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || running) return;
  if (!models.length) await loadModels(); // it was down, or wanted a key
  if (running || !models.length) return;
  $("question").value = "";
  grow();
  send(question);
});
$("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
});
$("question").addEventListener("input", grow);
$("stop").addEventListener("click", () => running?.abort());
$("new").addEventListener("click", () => choose(current.messages.length ? store.begin() : current));
$("open-sidebar").addEventListener("click", () => setSidebar(true));
$("close-sidebar").addEventListener("click", () => setSidebar(false));
document.querySelector("main").addEventListener("click", (event) => {
  if (!$("open-sidebar").contains(event.target)) setSidebar(false);
});
$("open-settings").addEventListener("click", () => openSettings());
$("settings").addEventListener("close", readSettings);
$("settings").addEventListener("input", showOutputs);
$("forget").addEventListener("click", () => {
  if (!confirm("Delete all conversations from this browser?")) return;
  running?.abort();
  store.removeAll();
  current = store.begin();
  show();
});
$("theme").addEventListener("click", () => {
  const dark = settings.theme ? settings.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  settings.theme = dark ? "light" : "dark";
  store.saveSettings();
  setTheme();
});
$("scroll").addEventListener("scroll", () => { $("down").hidden = atEnd(); });
$("down").addEventListener("click", toEnd);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  running?.abort();
  setSidebar(false);
});
addEventListener("beforeunload", () => running?.abort()); // else the answer is said to have broken off
addEventListener("pagehide", persist);

// A page that was closed while an answer was written.
for (const conversation of store.conversations) {
  for (const message of conversation.messages) if (message.state === "writing") message.state = "stopped";
}
setTheme();
show();
await loadModels();
const linked = new URLSearchParams(location.search);
if (linked.has("document")) openDocument(linked.get("document"), linked.get("passage"));
$("question").focus();
