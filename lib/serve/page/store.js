// Conversations and settings, kept in this browser and nowhere else.

const CONVERSATIONS = "smelt:conversations", SETTINGS = "smelt:settings", KEY = "smelt:key";
const MOST = 200; // conversations; the oldest go first, and earlier where the browser gives less room

export const DEFAULTS = { temperature: 0, top_p: 1, max_tokens: 512, seed: "", system: "", theme: "", model: "" };

const read = (name, otherwise) => {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
};

export const settings = { ...DEFAULTS, ...read(SETTINGS, {}) };
export const saveSettings = () => localStorage.setItem(SETTINGS, JSON.stringify(settings));

export const key = { get: () => sessionStorage.getItem(KEY) ?? "", set: (value) => sessionStorage.setItem(KEY, value) };

// Newest first: {id, title, messages: [{role, content, state, error, passages, cited, model, usage}]}
export let conversations = read(CONVERSATIONS, []);

export function save() {
  conversations = conversations.slice(0, MOST);
  for (;;) {
    try {
      localStorage.setItem(CONVERSATIONS, JSON.stringify(conversations.filter((one) => one.messages.length)));
      return;
    } catch (error) {
      if (conversations.length < 2) throw error;
      conversations = conversations.slice(0, -1);
    }
  }
}

export function begin() {
  const conversation = { id: crypto.randomUUID?.() ?? String(Math.random()), title: "", messages: [] };
  conversations = [conversation, ...conversations.filter((one) => one.messages.length)];
  return conversation;
}

export function touch(conversation) {
  conversations = [conversation, ...conversations.filter((one) => one !== conversation)];
}

export function remove(id) {
  conversations = conversations.filter((one) => one.id !== id);
  save();
}

export function removeAll() {
  conversations = [];
  save();
}
