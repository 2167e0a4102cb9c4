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

export function conversations() {
  const kept = read(CONVERSATIONS, []);
  return Array.isArray(kept) ? kept.filter(sound) : [];
}

// The newest first; the oldest go when there is no more room.
export function keep(all) {
  let rest = all.filter(one => one.messages.length).slice(0, MOST);
  while (!write(CONVERSATIONS, rest) && rest.length > 1) rest = rest.slice(0, -1);
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
