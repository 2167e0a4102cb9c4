// The server: what it runs on, and answers as they are made.

import {key} from "./store.js";

function headers() {
  const given = key();
  return given ? {"authorization": `Bearer ${given}`} : {};
}

export async function health() {
  const answer = await fetch("/health", {headers: headers()});
  return answer.json();
}

async function problem(answer) {
  let message = `the server answered with status ${answer.status}`;
  try { message = (await answer.json()).error.message || message; } catch { /* no JSON */ }
  const error = new Error(message);
  error.status = answer.status;
  return error;
}

// Calls onText(text) for each piece; returns {reason, usage}. Throws an Error with what the server says, also where an
// answer breaks off.
export async function chat(body, signal, onText) {
  const answer = await fetch("/v1/chat/completions", {
    method: "POST", signal, headers: {"content-type": "application/json", ...headers()},
    body: JSON.stringify({...body, stream: true, stream_options: {include_usage: true}})});
  if (!answer.ok) throw await problem(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "", reason = null, usage = null;
  for (;;) {
    const {value, done} = await reader.read();
    if (done) throw new Error("the answer broke off");
    const events = (held + value).split("\n\n");
    held = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return {reason, usage};
      const part = JSON.parse(data);
      if (part.error) throw new Error(part.error.message);
      usage = part.usage || usage;
      for (const choice of part.choices) {
        reason = choice.finish_reason || reason;
        if (choice.delta.content) onText(choice.delta.content);
      }
    }
  }
}
