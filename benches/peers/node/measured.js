// Shared by the two peers in Node: their arguments, their stopwatch and their line of results.
"use strict";

const assert = require("node:assert");
const { readFileSync } = require("node:fs");

// Calls in flight, the same for every peer that can have several.
exports.IN_FLIGHT = 8;
exports.TABLE = "events";
exports.REGION = "us-east-1";

const [url, file, count] = process.argv.slice(2);
const events = Number(count);
exports.url = url;
exports.bodies = readFileSync(file, "utf8").trimEnd().split("\n");

/**
 * Measures `write`, which writes a number of events and resolves to how many were acknowledged, and prints
 * the results. A first call opens the connections and lets the engine compile hot code.
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
