// Signs and serialises what standard input asks for, a JSON line each, with other people's code.
import { createInterface } from "node:readline";
import { sign } from "@octokit/webhooks-methods";
import { CloudEvent, HTTP } from "cloudevents";
import { Webhook } from "standardwebhooks";

// A body may be bytes, which JSON cannot carry.
const message = ({ headers, body }) => ({ headers, body: Buffer.from(body).toString("base64") });

const makers = {
  github: async ({ secret, body }) => sign(secret, body),
  standard: async ({ secret, id, timestamp, body }) =>
    new Webhook(secret).sign(id, new Date(timestamp * 1000), body),
  standardRaw: async ({ secret, id, timestamp, body }) =>
    new Webhook(secret, { format: "raw" }).sign(id, new Date(timestamp * 1000), body),
  structured: async ({ event }) => message(HTTP.structured(new CloudEvent(event))),
  binary: async ({ event }) => message(HTTP.binary(new CloudEvent(event))),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { make, ...request } = JSON.parse(line);
  const answer = await makers[make](request);
  process.stdout.write(JSON.stringify(answer) + "\n");
}
