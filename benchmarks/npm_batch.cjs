// The npm clients of MQTT and PostgreSQL in batches: node npm_batch.cjs FILTER COUNT INSERT.
// Says "ready" when subscribed; one INSERT at a time with all that came meanwhile; acknowledges on
// arrival, as its MQTT client does. Stores and does not debit.
"use strict";
const mqtt = require("mqtt");
const { Client } = require("pg");

const [filter, countText, insert] = process.argv.slice(2);
const broker = new URL(process.env.PREPAID_BROKER__URL);
const BATCH = 4000;

async function main() {
  const database = new Client();
  await database.connect();
  let left = Number(countText);
  let waiting = [];
  let busy = false;

  async function drain() {
    if (busy) return;
    busy = true;
    while (waiting.length > 0) {
      const batch = waiting.slice(0, BATCH);
      waiting = waiting.slice(BATCH);
      await database.query({
        name: "insert",
        text: insert,
        values: [batch.map((m) => m[0]), batch.map((m) => m[1]), batch.map((m) => m[2])],
      });
      left -= batch.length;
    }
    busy = false;
    if (left === 0) {
      client.end(true);
      await database.end();
    }
  }

  const client = mqtt.connect(`mqtt://${broker.host}`, {
    protocolVersion: 5,
    username: broker.username || undefined,
    password: broker.password || undefined,
  });
  client.on("message", (topic, payload) => {
    const said = JSON.parse(payload);
    waiting.push([topic.split("/")[2], said.ts, said.reg["1.8.0"]]);
    setImmediate(drain);
  });
  client.subscribe(filter, { qos: 1 }, () => console.log("ready"));
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
