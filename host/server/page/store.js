// Conversations and parameters, kept in this browser alone; the key only while its tab is open.

const CONVERSATIONS = "sterna.conversations", SETTINGS = "sterna.settings", KEY = "sterna.key";
const MOST = 100; // conversations that are kept
export const DEFAULTS = {temperature: "0.8", top_p: "1", top_k: "0", max_tokens: "256", seed: "", stop: "", theme: "",
                         system: ""};

function read(name, otherwise) {
  try {
    const value = JSON.parse(localStorage.getItem(name));
    return value && typeof value === typeof otherwise ? value : otherwise;
  } catch {
    return otherwise;
  }
}

function write(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

function sound(one) {
  return one && typeof one.id === "string" && Array.isArray(one.messages)
    && one.messages.every(message => message && typeof message.content === "string"
                                     && (message.role === "user" || message.role === "assistant"));
}

let memory = null; // where there is no storage, or no more room in it

// Another tab may have changed them.
export function conversations() {
  const kept = memory || read(CONVERSATIONS, []);
  return Array.isArray(kept) ? kept.filter(sound) : [];
}

// The oldest go when there is no more room.
function keep(all) {
  let rest = all.filter(one => one.messages.length).slice(0, MOST);
  while (!write(CONVERSATIONS, rest)) {
    if (rest.length < 2) { memory = all; return; }
    rest = rest.slice(0, -1);
  }
  memory = null;
}

// Whether they will be there when the page is opened again.
export function lasting() {
  return memory === null;
}

export function put(conversation) {
  keep([conversation, ...conversations().filter(one => one.id !== conversation.id)]);
}

export function drop(conversation) {
  keep(conversations().filter(one => one.id !== conversation.id));
}

// Calls function() when another tab has changed them.
export function watch(changed) {
  addEventListener("storage", event => { if (event.key === CONVERSATIONS || event.key === null) changed(); });
}

export function settings() {
  const kept = read(SETTINGS, {});
  return Object.fromEntries(Object.entries(DEFAULTS).map(
    ([name, value]) => [name, typeof kept[name] === "string" ? kept[name] : value]));
}

export function keepSettings(values) {
  write(SETTINGS, values);
}

export function key() {
  try { return sessionStorage.getItem(KEY) || ""; } catch { return ""; }
}

export function keepKey(value) {
  try { sessionStorage.setItem(KEY, value); } catch { /* asked for again next time */ }
}
