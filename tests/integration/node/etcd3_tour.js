// What the npm package etcd3 shows of itself: keys, ranges, a watch, a lease, a lock, a transaction,
// an election. node etcd3_tour.js ADDRESS; prints "well".
"use strict";
const assert = require("node:assert");
const { Etcd3 } = require("etcd3");

async function tour(client) {
  await client.put("foo").value("bar");
  assert.equal(await client.get("foo").string(), "bar");
  assert.equal(await client.get("nothing").string(), null);
  await client.put("fun").value("1");
  assert.deepEqual(await client.getAll().prefix("f").keys(), ["foo", "fun"]);
  assert.deepEqual(await client.getAll().prefix("f").strings(), { foo: "bar", fun: "1" });
  assert.equal(await client.getAll().prefix("f").count(), 2);

  const watcher = await client.watch().prefix("w/").create();
  const seen = [];
  const both = new Promise((resolve) => {
    const note = (event) => seen.push(event) === 2 && resolve();
    watcher.on("put", (kv) => note(`put ${kv.key} ${kv.value}`));
    watcher.on("delete", (kv) => note(`delete ${kv.key}`));
  });
  await client.put("w/a").value("1");
  await client.delete().key("w/a");
  await both;
  assert.deepEqual(seen, ["put w/a 1", "delete w/a"]);
  await watcher.cancel();

  const lease = client.lease(60);
  await lease.put("leased").value("while it lasts");
  assert.equal(await client.get("leased").string(), "while it lasts");
  await lease.revoke();
  assert.equal(await client.get("leased").string(), null);

  const held = await client.lock("job").acquire();
  await assert.rejects(client.lock("job").acquire());
  await held.release();
  assert.equal(await client.lock("job").do(async () => "done"), "done");

  const swap = (from, to) =>
    client.if("foo", "Value", "==", from).then(client.put("foo").value(to)).commit();
  assert.equal((await swap("bar", "baz")).succeeded, true);
  assert.equal((await swap("bar", "never")).succeeded, false);
  assert.equal(await client.get("foo").string(), "baz");

  const election = client.election("office", 60);
  const campaign = election.campaign("me");
  await new Promise((resolve, reject) => campaign.on("elected", resolve).on("error", reject));
  assert.equal(await election.leader(), "me");
  await campaign.resign();

  await client.delete().all();
  assert.deepEqual(await client.getAll().keys(), []);
}

const client = new Etcd3({ hosts: process.argv[2] });
tour(client).then(
  () => {
    client.close();
    console.log("well");
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
