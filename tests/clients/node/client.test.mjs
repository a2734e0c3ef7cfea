// OpenAI's official client for Node against the server at AVOCADO_URL.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: process.env.AVOCADO_URL + "/v1",
  apiKey: process.env.AVOCADO_KEY,
  maxRetries: 0,
});
const model = "avocado-1";
const messages = [{ role: "user", content: "hi" }];
const parameters = { type: "object", properties: { place: { type: "string" } } };
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const schema = {
  type: "object",
  properties: { city: { type: "string" }, degrees: { type: "integer" } },
  required: ["city", "degrees"],
  additionalProperties: false,
};

test("a plain chat", async () => {
  const answer = await client.chat.completions.create({ model, messages });
  assert.equal(answer.choices[0].message.content, "one two three four five");
  assert.equal(answer.usage.completion_tokens, 6);
  assert.ok(answer.usage.cost > 0);
  assert.match(answer._request_id, /^req_/);
});

test("a streamed chat", async () => {
  const stream = await client.chat.completions.create({
    model, messages, stream: true, stream_options: { include_usage: true },
  });
  let text = "";
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, "one two three four five");
  assert.equal(usage.completion_tokens, 6);
});

test("the stream helper accumulates a tool call", async () => {
  const stream = client.chat.completions.stream({ model, messages, tools });
  const final = await stream.finalChatCompletion();
  const [call] = final.choices[0].message.tool_calls;
  assert.equal(final.choices[0].finish_reason, "tool_calls");
  assert.deepEqual(JSON.parse(call.function.arguments), { place: "Oslo" });
});

test("runTools goes round until there is an answer", async () => {
  const asked = [];
  const weather = {
    type: "function",
    function: {
      name: "weather",
      description: "the weather",
      parameters,
      parse: JSON.parse,
      function: ({ place }) => { asked.push(place); return "rain"; },
    },
  };
  const runner = client.chat.completions.runTools({ model, messages, tools: [weather] });
  assert.equal(await runner.finalContent(), "It rains.");
  assert.deepEqual(asked, ["Oslo"]);
});

test("a schema", async () => {
  const answer = await client.chat.completions.parse({
    model,
    messages,
    response_format: { type: "json_schema", json_schema: { name: "w", schema, strict: true } },
  });
  assert.deepEqual(JSON.parse(answer.choices[0].message.content), { city: "Oslo", degrees: 7 });
});

test("completions", async () => {
  const answer = await client.completions.create({ model, prompt: ["a", "b"] });
  assert.deepEqual(answer.choices.map((choice) => choice.text.length > 0), [true, true]);
});

test("a response", async () => {
  const answer = await client.responses.create({ model, input: "hi", store: false });
  assert.equal(answer.output_text, "one two three four five");
  assert.equal(answer.status, "completed");
});

test("a streamed response", async () => {
  const stream = client.responses.stream({ model, input: "hi", store: false });
  const kinds = new Set();
  for await (const event of stream) kinds.add(event.type);
  const final = await stream.finalResponse();
  // This helper leaves output_text out, whatever server it talks to.
  assert.equal(final.output[0].content[0].text, "one two three four five");
  assert.ok(kinds.has("response.output_text.delta") && kinds.has("response.completed"));
});

test("a response that calls a tool", async () => {
  const answer = await client.responses.create({
    model, input: "hi", store: false,
    tools: [{ type: "function", name: "weather", parameters, strict: false }],
  });
  const [call] = answer.output.filter((item) => item.type === "function_call");
  assert.deepEqual(JSON.parse(call.arguments), { place: "Oslo" });
});

test("models", async () => {
  const found = [];
  for await (const each of client.models.list()) found.push(each.id);
  assert.deepEqual(found, [model]);
  assert.equal((await client.models.retrieve(model)).owned_by, "avocado");
});

test("errors have their classes", async () => {
  const wrong = new OpenAI({ baseURL: process.env.AVOCADO_URL + "/v1", apiKey: "no", maxRetries: 0 });
  await assert.rejects(wrong.models.list(), OpenAI.AuthenticationError);
  await assert.rejects(
    client.chat.completions.create({ model: "gpt-9", messages }), OpenAI.NotFoundError,
  );
  await assert.rejects(
    client.embeddings.create({ model, input: "x" }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "model",
  );
});

test("leaving a stream", async () => {
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  for await (const _ of stream) break;
  assert.ok(stream.controller.signal.aborted);
});
