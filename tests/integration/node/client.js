// A client of another language: node client.js ADDRESS PROTO_DIRECTORY [CA_FILE]
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, protos, authority] = process.argv.slice(2);
const credentials = authority
  ? grpc.credentials.createSsl(fs.readFileSync(authority))
  : grpc.credentials.createInsecure();
const load = (file) =>
  grpc.loadPackageDefinition(
    loader.loadSync(path.join(protos, "kvstore/v1", file), {
      includeDirs: [protos],
      keepCase: true,
      defaults: true,
    }),
  ).kvstore.v1;

function unary(client, method, request, options = {}) {
  return new Promise((resolve, reject) => {
    client[method](request, options.metadata ?? new grpc.Metadata(), options, (error, answer) =>
      error ? reject(error) : resolve(answer),
    );
  });
}

async function refused(promise, code) {
  const error = await promise.then(
    () => assert.fail("a call was answered"),
    (caught) => caught,
  );
  assert.strictEqual(error.code, code, error.message);
  return error;
}

async function main() {
  const kv = new (load("kv.proto").KV)(address, credentials);
  const key = Buffer.from("node");
  const value = Buffer.alloc(1 << 20, "x");
  const put = (id, bytes) => unary(kv, "Put", { key, value: bytes, request_id: id });

  assert.deepStrictEqual(await put("n1", Buffer.from("1")), { overwritten: false });
  assert.deepStrictEqual(await put("n2", value), { overwritten: true });
  const got = await unary(kv, "Get", { key });
  assert.ok(got.found && value.equals(got.value));
  assert.deepStrictEqual(await unary(kv, "Delete", { key, request_id: "n3" }), { deleted: true });
  assert.strictEqual((await unary(kv, "Get", { key })).found, false);

  const reused = await refused(put("n3", value), grpc.status.INVALID_ARGUMENT);
  assert.match(reused.details, /request_id/);
  const retry = new grpc.Metadata();
  retry.set("kvstore-attempt", "2");
  const again = { key, value: Buffer.from("1"), request_id: "n1" };
  assert.deepStrictEqual(await unary(kv, "Put", again, { metadata: retry }), {
    overwritten: false,
  });
  await refused(
    unary(kv, "Get", { key }, { deadline: Date.now() - 1 }),
    grpc.status.DEADLINE_EXCEEDED,
  );

  const many = Array.from({ length: 200 }, (_, n) => unary(kv, "Get", { key: Buffer.from(`${n}`) }));
  assert.ok((await Promise.all(many)).every((answer) => !answer.found));

  const admin = new (load("admin.proto").Admin)(address, credentials);
  const status = await unary(admin, "Status", {});
  assert.strictEqual(status.members.length, 5);
  const backup = await new Promise((resolve, reject) => {
    let size = 0;
    admin
      .SaveSnapshot({})
      .on("data", (piece) => (size += piece.data.length))
      .on("error", reject)
      .on("end", () => resolve(size));
  });
  assert.ok(backup > 0);
  const given_up = admin.SaveSnapshot({});
  const ended = new Promise((resolve) => given_up.on("error", resolve));
  given_up.on("data", () => {});
  given_up.cancel();
  assert.strictEqual((await ended).code, grpc.status.CANCELLED);
  console.log("well");
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
