// The page: conversations at the side, messages in the middle. Texts become text nodes, never markup.

import * as store from "./store.js";
import {chat, health} from "./api.js";

const $ = id => document.getElementById(id);
const IDEAS = ["Once upon a time", "One day, a little girl named Lily", "The old boat"];
const POLL_MS = 2000, NARROW = matchMedia("(max-width: 760px)");

let settings = store.settings();
let current = null, running = null, model = null;

function made(kind, words, properties = {}) {
  const out = Object.assign(document.createElement(kind), properties);
  if (words !== undefined) out.textContent = words;
  return out;
}

function titleOf(conversation) {
  const first = conversation?.messages[0]?.content.trim().replace(/\s+/g, " ");
  return first ? first.slice(0, 60) : "New conversation";
}

// Conversations

function open(conversation) {
  if (running) { stop(); running = null; busy(false); }
  current = conversation || {id: `${Date.now()}-${Math.random()}`, messages: []};
  $("speed").textContent = "";
  trouble("");
  draw();
}

function remove(conversation) {
  if (conversation.id === current.id) current.gone = true;
  store.drop(conversation);
  if (conversation.id === current.id) open(null);
  else drawList();
  ($("list").querySelector("button") || $("new")).focus();
}

function keep(conversation) {
  store.put(conversation);
  $("keeping").hidden = store.lasting();
}

function drawList() {
  $("list").replaceChildren(...store.conversations().map(one => {
    const row = made("li"), pick = made("button", titleOf(one), {type: "button", className: "pick"});
    if (one.id === current.id) pick.setAttribute("aria-current", "true");
    pick.addEventListener("click", () => { open(one.id === current.id ? current : one); side(false); $("prompt").focus(); });
    const drop = made("button", "×", {type: "button", className: "drop"});
    drop.setAttribute("aria-label", `Delete conversation: ${titleOf(one)}`);
    drop.addEventListener("click", () => remove(one));
    row.append(pick, drop);
    return row;
  }));
}

function noteOf(message) {
  const parts = [];
  if (message.stopped) parts.push("stopped");
  if (message.broken) parts.push("broken off");
  if (message.reason === "length") parts.push("reached the most tokens");
  if (message.speed) parts.push(message.speed);
  return parts.join(" · ");
}

// An answer that goes on with a text begins with the space between them.
function shown(message) {
  return message.role === "user" ? message.content : message.content.replace(/^ +/, "");
}

function drawMessage(message, last) {
  const row = made("li", undefined, {className: message.role});
  row.append(made("h2", message.role === "user" ? "You" : "Model", {className: "who"}));
  const text = made("div", shown(message), {className: "text"});
  row.append(text);
  if (message.role === "assistant") {
    const foot = made("div", undefined, {className: "foot"});
    foot.append(made("span", noteOf(message), {className: "note"}));
    if (last && !running) {
      const again = made("button", "Regenerate", {type: "button", className: "plain", id: "again"});
      again.addEventListener("click", regenerate);
      foot.append(again);
    }
    row.append(foot);
  }
  return row;
}

function draw() {
  const messages = current.messages;
  $("title").textContent = titleOf(current);
  $("empty").hidden = messages.length > 0;
  $("log").replaceChildren(...messages.map((one, at) => drawMessage(one, at === messages.length - 1)));
  drawList();
  $("scroll").scrollTop = $("scroll").scrollHeight;
}

// What went wrong; the last message may be answered again.
function trouble(words) {
  $("problem").textContent = words;
  $("retry").hidden = !current.messages.length;
  $("trouble").hidden = !words;
}

// Answers

function number(text) {
  const value = Number(text);
  return text.trim() === "" || Number.isNaN(value) ? undefined : value;
}

function request() {
  const said = current.messages.map(({role, content}) => ({role, content}));
  const system = settings.system.trim();
  return {model, messages: system ? [{role: "system", content: system}, ...said] : said,
          temperature: number(settings.temperature), top_p: number(settings.top_p), top_k: number(settings.top_k),
          max_tokens: number(settings.max_tokens), seed: number(settings.seed),
          stop: settings.stop ? [settings.stop] : undefined};
}

async function answer() {
  if (running) return;
  const body = request(), mine = current, message = {role: "assistant", content: ""};
  const control = running = new AbortController();
  busy(true);
  trouble("");
  draw();
  const row = drawMessage(message, false), text = row.querySelector(".text"), began = performance.now();
  row.setAttribute("aria-busy", "true");
  $("log").append(row);
  let first = null, drawing = false, problem = "";
  const show = () => {
    const box = $("scroll"), following = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
    text.textContent = shown(message);
    if (following) box.scrollTop = box.scrollHeight;
    drawing = false;
  };
  show();
  try {
    const {reason, usage} = await chat(body, control.signal, piece => {
      first ??= performance.now();
      message.content += piece;
      if (!drawing) requestAnimationFrame(show);
      drawing = true;
    });
    message.reason = reason;
    if (usage && first !== null) {
      const now = performance.now(), made = usage.completion_tokens, cached = usage.prompt_tokens_details.cached_tokens;
      // Tokens that came together with the first one would count for nothing.
      const rate = now - first > 250 ? (made - 1) / (now - first) : made / (now - began);
      message.speed = `${made} tokens, ${(1000 * rate).toFixed(rate < 0.02 ? 1 : 0)} tokens/s`;
      $("speed").textContent = `${message.speed}; first after ${Math.round(first - began)} ms; prompt of `
        + `${usage.prompt_tokens} tokens, ${cached} of them kept from before`;
    }
  } catch (error) {
    if (control.signal.aborted) message.stopped = true;
    else {
      message.broken = true;
      problem = error instanceof TypeError
        ? first === null ? "The server does not answer." : "The connection to the server broke off." : error.message;
      if (error.status === 401) { showSettings(true); $("settings").elements.key.focus(); }
    }
  }
  if (running === control) { running = null; busy(false); }
  if (message.content || message.reason) mine.messages.push(message);
  if (!mine.gone) keep(mine);
  if (mine === current) { trouble(problem); draw(); }
  else drawList();
  $("say").textContent = message.stopped ? "Stopped." : message.content ? `The model says: ${message.content}` : "";
}

function send(words) {
  if (!words.trim() || running) return;
  current.messages.push({role: "user", content: words});
  keep(current);
  answer();
}

function regenerate() {
  if (running || !current.messages.length) return;
  if (current.messages.at(-1).role === "assistant") current.messages.pop();
  $("prompt").focus();
  answer();
}

function stop() {
  running?.abort();
}

function busy(yes) {
  $("send").hidden = yes;
  $("stop").hidden = !yes;
}

// What runs where

async function look() {
  try {
    const found = await health();
    if (!found.devices) { $("waiting").textContent = "The server wants a key: see Parameters."; return; }
    model = found.model;
    $("model").textContent = model;
    $("devices").replaceChildren(...found.devices.map(one => {
      const row = made("li", undefined, {className: one.alive ? "alive" : "gone"});
      row.append(made("strong", one.name), made("span", one.alive ? `${one.running} of ${one.slots} slots busy, `
        + `${one.tokens.toLocaleString("en")} tokens made` : "does not answer", {className: "quiet"}));
      row.title = one.label;
      return row;
    }));
    $("waiting").textContent = found.waiting ? `${found.waiting} waiting` : "";
  } catch {
    $("devices").replaceChildren();
    $("waiting").textContent = "The server does not answer.";
  }
}

// Controls

function side(yes) {
  document.body.classList.toggle("side", yes);
  $("menu").setAttribute("aria-expanded", String(yes));
  $("shade").hidden = !yes;
}

function showSettings(yes) {
  $("settings").hidden = !yes;
  $("gear").setAttribute("aria-expanded", String(yes));
}

function fit() {
  const field = $("prompt");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight + 2, 200)}px`;
}

$("compose").addEventListener("submit", event => {
  event.preventDefault();
  const field = $("prompt");
  if (running || !field.value.trim()) return;
  send(field.value);
  field.value = "";
  fit();
  field.focus();
});
$("prompt").addEventListener("input", fit);
$("prompt").addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("compose").requestSubmit();
  }
});
document.addEventListener("keydown", event => {
  if (event.key !== "Escape") return;
  if (running) { stop(); $("prompt").focus(); }
  else if (document.body.classList.contains("side")) { side(false); $("menu").focus(); }
});
$("stop").addEventListener("click", () => { stop(); $("prompt").focus(); });
$("new").addEventListener("click", () => { open(null); side(false); $("prompt").focus(); });
$("menu").addEventListener("click", () => side(!document.body.classList.contains("side")));
$("shade").addEventListener("click", () => side(false));
$("gear").addEventListener("click", () => showSettings($("settings").hidden));
NARROW.addEventListener("change", () => side(false));

const fields = $("settings").elements;
for (const [name, value] of Object.entries(settings)) fields[name].value = value;
fields.key.value = store.key();
$("settings").addEventListener("submit", event => event.preventDefault());
$("settings").addEventListener("input", event => {
  if (event.target.name === "key") { store.keepKey(event.target.value); look(); return; }
  settings[event.target.name] = event.target.value;
  store.keepSettings(settings);
  if (settings.theme) document.documentElement.dataset.theme = settings.theme;
  else delete document.documentElement.dataset.theme;
});

$("hint").textContent = "A story model goes on with your text. Enter sends, Shift+Enter begins a line, Escape stops.";
$("ideas").append(...IDEAS.map(words => {
  const idea = made("button", words, {type: "button", className: "idea"});
  idea.addEventListener("click", () => { send(words); $("prompt").focus(); });
  return idea;
}));
$("retry").addEventListener("click", regenerate);
store.watch(drawList);
open(null);
await look();
$("prompt").focus();
setInterval(() => { if (!document.hidden) look(); }, POLL_MS);
