"""OpenAI's Files and Batch API: many requests in one file, run when the engines are idle."""
