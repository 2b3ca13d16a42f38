// Stripe's own Node library against the sandbox: the same flows that the gateway is used for, and webhooks both ways.

const assert = require("node:assert/strict");
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const http = require("node:http");
const os = require("node:os");
const path = require("node:path");
const readline = require("node:readline");
const Stripe = require("stripe");

const PROGRAM = path.join(__dirname, "..", "..", "..", "target", "debug", "tollgate");
const START_MS_MAX = 60_000;
const WAIT_MS_MAX = 30_000;
const SECRET = "whsec_of_the_judge";

// Rejects when the promise takes longer.
function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing after ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// `tollgate dev` on free ports with a folder of its own.
async function dev() {
  const data = fs.mkdtempSync(path.join(os.tmpdir(), "tollgate-judge-"));
  const state = path.join(data, "state");
  const process = spawn(PROGRAM, ["dev", "--ports", "random", "--json-ready", "--data", state], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const ended = new Promise((resolve) => process.on("exit", resolve));
  const lines = readline.createInterface({ input: process.stdout });
  const line = new Promise((resolve) => lines.once("line", resolve));
  const ready = JSON.parse(await within(START_MS_MAX, "`tollgate dev`", line));
  const stop = async () => {
    process.kill("SIGTERM");
    await within(WAIT_MS_MAX, "the end of `tollgate dev`", ended).catch(() => process.kill("SIGKILL"));
    fs.rmSync(data, { recursive: true, force: true });
  };
  return { ...ready, stop };
}

const url = (text) => new URL(text.includes("://") ? text : `http://${text}`);

// Status of a POST.
async function post(target, body, headers) {
  const answer = await fetch(target, { method: "POST", body, headers, signal: AbortSignal.timeout(WAIT_MS_MAX) });
  await answer.text();
  return answer.status;
}

// A merchant's own webhook endpoint.
async function receiver() {
  const deliveries = [];
  const waiting = [];
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      response.end();
      deliveries.push({ body: Buffer.concat(chunks), signature: request.headers["stripe-signature"] });
      waiting.splice(0).forEach((wake) => wake());
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const find = async (type) => {
    for (;;) {
      const found = deliveries.find((delivery) => JSON.parse(delivery.body).type === type);
      if (found) return found;
      await new Promise((resolve) => waiting.push(resolve));
    }
  };
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    find: (type) => within(WAIT_MS_MAX, type, find(type)),
    close: () => server.close(),
  };
}

const checks = {
  async a_customer_gets_a_card({ stripe }) {
    const customer = await stripe.customers.create({ name: "Jenny Rosen", email: "jenny@example.com" });
    const attached = await stripe.paymentMethods.attach("pm_card_visa", { customer: customer.id });
    assert.equal(attached.customer, customer.id);
    const invoice_settings = { default_payment_method: attached.id };
    const updated = await stripe.customers.update(customer.id, { invoice_settings });
    assert.equal(updated.invoice_settings.default_payment_method, attached.id);
  },

  async two_halves_are_refunded_each_once({ stripe, pay }) {
    const intent = await pay("pm_card_visa");
    const half = { payment_intent: intent.id, amount: 1500 };
    const first = await stripe.refunds.create(half, { idempotencyKey: `${intent.id}-first` });
    const again = await stripe.refunds.create(half, { idempotencyKey: `${intent.id}-first` });
    const second = await stripe.refunds.create(half, { idempotencyKey: `${intent.id}-second` });
    assert.equal(first.id, again.id);
    assert.notEqual(first.id, second.id);
    assert.equal(again.lastResponse.headers["idempotent-replayed"], "true");
    const other = stripe.refunds.create({ ...half, amount: 1400 }, { idempotencyKey: `${intent.id}-first` });
    await assert.rejects(other, { type: "StripeIdempotencyError" });
    const more = stripe.refunds.create({ payment_intent: intent.id, amount: 1 });
    await assert.rejects(more, { code: "charge_already_refunded" });
  },

  async a_declined_card_is_a_card_error({ pay }) {
    await assert.rejects(pay("pm_card_chargeDeclined"), { type: "StripeCardError", code: "card_declined" });
  },

  async a_dispute_takes_evidence_with_a_file({ stripe, pay, hook }) {
    const intent = await pay("pm_card_createDispute");
    await hook.find("charge.dispute.created");
    const disputes = await stripe.disputes.list({ payment_intent: intent.id });
    const data = Buffer.from("%PDF-1.4\n%%EOF\n");
    const file = { data, name: "receipt.pdf", type: "application/pdf" };
    const upload = await stripe.files.create({ purpose: "dispute_evidence", file });
    const id = disputes.data[0].id;
    const evidence = { receipt: upload.id, uncategorized_text: "winning_evidence" };
    const staged = await stripe.disputes.update(id, { evidence, submit: false });
    assert.equal(staged.evidence_details.submission_count, 0);
    const submitted = await stripe.disputes.update(id, { submit: true });
    assert.equal(submitted.evidence_details.submission_count, 1);
    assert.equal(submitted.evidence.receipt, upload.id);
  },

  async the_balance_and_the_events_are_read({ stripe }) {
    const balance = await stripe.balance.retrieve();
    assert.equal(balance.available[0].currency, "usd");
    const events = await stripe.events.list({ limit: 100 });
    assert(events.data.some((event) => event.type === "refund.created"));
  },

  async its_verifier_takes_the_webhooks_of_the_sandbox({ stripe, hook }) {
    const { body, signature } = await hook.find("refund.created");
    const event = stripe.webhooks.constructEvent(body, signature, SECRET);
    assert.equal(event.data.object.object, "refund");
    const tampered = body.toString().replace("1500", "1501");
    assert.throws(() => stripe.webhooks.constructEvent(tampered, signature, SECRET), {
      type: "StripeSignatureVerificationError",
    });
  },

  async the_gateway_takes_what_the_library_signs({ stripe, ready }) {
    const payload = JSON.stringify({
      id: "evt_1SignedByTheLibrary",
      object: "event",
      api_version: "2026-10-28.endive",
      created: Math.floor(Date.now() / 1000),
      livemode: false,
      pending_webhooks: 1,
      request: { id: null, idempotency_key: null },
      type: "refund.updated",
      data: { object: { id: "re_1SignedByTheLibrary", object: "refund", amount: 1500 } },
    });
    const signature = stripe.webhooks.generateTestHeaderString({ payload, secret: ready.webhook_secret });
    const target = new URL("/webhooks/stripe", url(ready.webhook));
    const headers = { "stripe-signature": signature, "content-type": "application/json" };
    assert.equal(await post(target, payload.replace("1500", "1501"), headers), 400);
    assert.equal(await post(target, payload, headers), 200);
  },
};

async function main() {
  let passed = 0;
  let failed = 0;
  const ready = await dev();
  const hook = await receiver();
  try {
    const base = url(ready.stripe);
    const stripe = new Stripe(ready.stripe_key, {
      host: base.hostname,
      port: Number(base.port),
      protocol: "http",
      maxNetworkRetries: 2,
    });
    const targets = [
      { url: new URL("/webhooks/stripe", url(ready.webhook)).href, secrets: [ready.webhook_secret] },
      { url: hook.url, secrets: [SECRET] },
    ];
    const json = { "content-type": "application/json" };
    assert.equal(await post(new URL("/_sandbox/webhooks", base), JSON.stringify(targets), json), 200);
    const pay = (payment_method) =>
      stripe.paymentIntents.create({
        amount: 3000,
        currency: "usd",
        payment_method,
        confirm: true,
        allowed_payment_method_types: ["card"],
      });
    for (const [name, check] of Object.entries(checks)) {
      try {
        await check({ stripe, pay, hook, ready });
        passed += 1;
        console.log(`test ${name} ... ok`);
      } catch (error) {
        failed += 1;
        console.log(`test ${name} ... FAILED\n`, error);
      }
    }
  } finally {
    hook.close();
    await ready.stop();
  }
  console.log(`test result: ${failed ? "FAILED" : "ok"}. ${passed} passed; ${failed} failed;`);
  process.exitCode = failed || !passed ? 1 : 0;
}

main().catch((error) => {
  console.log(error);
  console.log("test result: FAILED. 0 passed; 1 failed;");
  process.exit(1);
});
