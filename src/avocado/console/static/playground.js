// The playground: sends a conversation to our own console, which asks the gateway, and shows the
// answer as it comes, with its cost. Model text is only ever set as text, never as HTML.
"use strict";

const play = document.getElementById("play");
if (play) start(play.dataset);

function start(words) {
  const at = (id) => document.getElementById(id);
  const lines = at("lines"), question = at("question"), send = at("send"), stop = at("stop");
  let turns = [], total = 0, running = null;

  const money = (cost) => {
    const digits = cost > 0 && cost < 0.01 ? Math.min(9, 1 - Math.floor(Math.log10(cost))) : 2;
    return new Intl.NumberFormat(words.locale, {
      style: "currency", currency: words.currency,
      minimumFractionDigits: digits, maximumFractionDigits: digits,
    }).format(cost);
  };

  function add(who, by) {
    at("blank")?.remove();
    const line = document.createElement("div");
    line.className = `line-of ${who}`;
    const name = document.createElement("p");
    name.className = "by";
    name.textContent = by;
    const said = document.createElement("p");
    said.className = "said";
    line.append(name, said);
    lines.append(line);
    lines.scrollTop = lines.scrollHeight;
    return { line, said };
  }

  function note(line, text) {
    const bill = document.createElement("p");
    bill.className = "bill";
    bill.textContent = text;
    line.append(bill);
    lines.scrollTop = lines.scrollHeight;
  }

  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      const parts = rest.split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split(/\r?\n/).filter((each) => each.startsWith("data:"))
          .map((each) => each.slice(5).replace(/^ /, "")).join("\n");
        if (data && data !== "[DONE]") yield JSON.parse(data);
      }
    }
  }

  function show(shown, chunk, answer) {
    const delta = chunk.choices?.[0]?.delta ?? {};
    const thought = delta.reasoning_content ?? delta.reasoning;
    if (thought) {
      if (!shown.thought) {
        shown.thought = document.createElement("p");
        shown.thought.className = "thought";
        shown.line.insertBefore(shown.thought, shown.said);
      }
      shown.thought.textContent += thought;
    }
    if (delta.content) {
      answer.text += delta.content;
      shown.said.textContent = answer.text;
    }
    if (chunk.usage) answer.usage = chunk.usage;
    const below = lines.scrollHeight - lines.scrollTop - lines.clientHeight;
    if (below < 120) lines.scrollTop = lines.scrollHeight;
  }

  async function ask(text) {
    const model = at("f-model").value;
    const system = at("system").value.trim();
    turns.push({ role: "user", content: text });
    add("you", words.you).said.textContent = text;
    const shown = add("them", model);
    shown.said.classList.add("cursor");
    const answer = { text: "", usage: null };
    running = new AbortController();
    send.hidden = true;
    stop.hidden = false;
    try {
      const response = await fetch("/playground/ask", {
        method: "POST",
        signal: running.signal,
        headers: {
          "Content-Type": "application/json", Accept: "application/json",
          "X-CSRF-Token": words.csrf,
        },
        body: JSON.stringify({
          model,
          messages: [...(system ? [{ role: "system", content: system }] : []), ...turns],
          temperature: Number(at("temperature").value),
          max_tokens: Number(at("most").value) || 512,
        }),
      });
      if (!response.ok) throw new Error((await response.json()).error.message);
      for await (const chunk of events(response)) {
        if (chunk.error) throw new Error(chunk.error.message);
        show(shown, chunk, answer);
      }
      turns.push({ role: "assistant", content: answer.text });
      bill(shown.line, answer.usage);
    } catch (error) {
      if (error.name === "AbortError") {
        if (answer.text) turns.push({ role: "assistant", content: answer.text });
        else turns.pop();
        note(shown.line, words.stopped);
      } else {
        turns.pop();
        shown.line.classList.add("wrong");
        shown.said.textContent = answer.text || "";
        const why = error instanceof TypeError ? words.lost : error.message;
        shown.said.append((answer.text ? "\n" : "") + why);
        if (!question.value) question.value = text;
      }
    } finally {
      shown.said.classList.remove("cursor");
      running = null;
      send.hidden = false;
      stop.hidden = true;
      question.focus();
    }
  }

  function bill(line, usage) {
    if (!usage) {
      note(line, words.unbilled);
      return;
    }
    const cost = Number(usage.cost ?? 0);
    total += cost;
    at("total").textContent = money(total);
    note(line, words.bill.replace("{cost}", money(cost))
      .replace("{prompt}", usage.prompt_tokens).replace("{completion}", usage.completion_tokens));
  }

  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = question.value.trim();
    if (!text || running) return;
    question.value = "";
    ask(text);
  });
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      at("ask").requestSubmit();
    }
  });
  stop.addEventListener("click", () => running?.abort());
  at("temperature").addEventListener("input", (event) => {
    at("warmth").textContent = event.target.value;
  });
  at("afresh").addEventListener("click", () => {
    running?.abort();
    turns = [];
    total = 0;
    lines.replaceChildren();
    at("total").textContent = "–";
    question.focus();
  });
}
