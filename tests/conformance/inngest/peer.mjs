// Inngest's JavaScript SDK as the other side: reads one JSON request from stdin, writes the answer.
import { Inngest } from "inngest";
import { serve } from "inngest/edge";

const internal = (path) => import(new URL(`./node_modules/inngest/${path}`, import.meta.url));
const quiet = { debug() {}, info() {}, warn() {}, error() {} };

// An app of one function that does what ours does for a long type.
function app({ appId, key, fnId, event, expression, timeout }) {
  const client = new Inngest({ id: appId, isDev: false, signingKey: key, logger: quiet });
  const job = client.createFunction(
    { id: fnId, triggers: [{ event }], checkpointing: false },
    async ({ step }) => {
      const [, ended] = await Promise.all([
        step.run("submit", () => ({ job_id: "x" })),
        step.waitForEvent("finished", { event: "hybridjobs/job.finished", if: expression, timeout }),
      ]);
      return ended;
    },
  );
  return serve({ client, functions: [job] });
}

const commands = {
  async sign({ body, key, moment }) {
    const { signDataWithKey } = await internal("helpers/net.js");
    return signDataWithKey(body, key, moment, quiet);
  },

  async configs({ functions }) {
    const { functionConfigSchema } = await internal("types.js");
    return functions.map((each) => {
      const found = functionConfigSchema.safeParse(each);
      return found.success ? null : found.error.issues;
    });
  },

  async call({ url, method, body, headers, ...rest }) {
    const all = { host: new URL(url).host, ...headers };
    const asked = new Request(url, { method, body: body || undefined, headers: all });
    const answer = await app(rest)(asked);
    return {
      status: answer.status,
      headers: Object.fromEntries(answer.headers),
      body: await answer.text(),
    };
  },
};

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { command, ...request } = JSON.parse(Buffer.concat(chunks).toString());
process.stdout.write(JSON.stringify(await commands[command](request)));
