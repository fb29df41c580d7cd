// What the two peers in Node share: their arguments, their watch and their one line.
"use strict";

const assert = require("node:assert");
const { readFileSync } = require("node:fs");

// As many calls at the same time as every peer has that can have more than one.
exports.IN_FLIGHT = 8;
exports.TABLE = "events";
exports.REGION = "us-east-1";

const [url, file, count] = process.argv.slice(2);
const events = Number(count);
exports.url = url;
exports.bodies = readFileSync(file, "utf8").trimEnd().split("\n");

/**
 * Calls `write`, which is given how many events to write and resolves to how many were answered, and
 * prints what that took. The first call opens the connections and lets the engine compile what is hot.
 */
exports.measure = async function measure(write, versions) {
  await write(events / 2);
  const cpu = process.cpuUsage();
  const wall = process.hrtime.bigint();
  const answered = await write(events);
  const wallNanoseconds = process.hrtime.bigint() - wall;
  const { user, system } = process.cpuUsage(cpu);
  assert.strictEqual(answered, events);
  console.log(JSON.stringify({
    events: answered,
    wall_seconds: Number(wallNanoseconds) / 1e9,
    cpu_seconds: (user + system) / 1e6,
    versions: { node: process.versions.node, ...versions },
  }));
};
