"""Quickstart: code that works, with the customer's own base URL and model in it."""

from __future__ import annotations

from dataclasses import dataclass

from avocado.console.customer.models import models_of
from avocado.console.page import Nav, Pages, Values, Visit
from avocado.console.roles import CUSTOMER

PAGES = Pages()


@dataclass(frozen=True)
class Snippet:
    """``id`` is the tab's, ``install`` a command that it needs first."""

    id: str
    label: str
    install: str
    code: str


@PAGES.show(
    "/snippets",
    roles=CUSTOMER,
    template="customer/snippets.html",
    nav=Nav("nav.snippets", "code", 30),
)
def snippets(visit: Visit) -> Values:
    models = models_of(visit)
    names = [each.name for each in models]
    model = visit.query.get("model", "")
    model = model if model in names else next(iter(names), "")
    url = f"{visit.console.api_url}/v1"
    shown = snippets_for(url, model or "MODEL")
    wanted = visit.query.get("in", "curl")
    return {
        "url": url,
        "model": model,
        "models": models,
        "choices": [(each, each) for each in names],
        "snippets": shown,
        "shown": next((each for each in shown if each.id == wanted), shown[0]),
    }


def snippets_for(url: str, model: str) -> list[Snippet]:
    """The same request in each language; the key comes from the environment."""
    curl = f"""curl {url}/chat/completions \\
  -H "Authorization: Bearer $AVOCADO_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{
    "model": "{model}",
    "messages": [{{"role": "user", "content": "Hello!"}}]
  }}'"""
    python = f"""import os
from openai import OpenAI

client = OpenAI(base_url="{url}", api_key=os.environ["AVOCADO_API_KEY"])

stream = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "Hello!"}}],
    stream=True,
    stream_options={{"include_usage": True}},
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    if chunk.usage:
        print("\\ncost:", chunk.usage.model_extra["cost"])"""
    node = f"""import OpenAI from "openai";

const client = new OpenAI({{
  baseURL: "{url}",
  apiKey: process.env.AVOCADO_API_KEY,
}});

const stream = await client.chat.completions.create({{
  model: "{model}",
  messages: [{{ role: "user", content: "Hello!" }}],
  stream: true,
  stream_options: {{ include_usage: true }},
}});
for await (const chunk of stream) {{
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
  if (chunk.usage) console.log("\\ncost:", chunk.usage.cost);
}}"""
    return [
        Snippet("curl", "curl", "", curl),
        Snippet("python", "Python", "pip install openai", python),
        Snippet("node", "Node", "npm install openai", node),
    ]
