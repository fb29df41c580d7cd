// The npm module that this crate continues.
//
// It always sends one event a call, but its caller can have several calls in flight. It depends on
// aws-sdk 1.6.0 and accepts another version through its option `AWS`. The endpoint and the agent are set
// in the configuration of that SDK, as the SDK documents it. The agent keeps connections alive, which
// Node's default agent does only since version 19.
//
// The events are objects, as the module requires. It makes the keys and the JSON texts within the
// measured time.
"use strict";

const assert = require("node:assert");
const { Agent } = require("node:http");
const AWS = require("aws-sdk");
const DynamoDbEventStore = require("dynamodb-eventstore");
const { IN_FLIGHT, REGION, TABLE, bodies, measure, url } = require("./measured.js");

AWS.config.update({ endpoint: url, httpOptions: { agent: new Agent({ keepAlive: true }) } });
const store = new DynamoDbEventStore({
  AWS,
  accessKeyId: process.env.AWS_ACCESS_KEY_ID,
  secretAccessKey: process.env.AWS_SECRET_ACCESS_KEY,
  region: REGION,
  dynamoDbTable: TABLE,
});

// The module checks only errors, so unprocessed items are checked here.
AWS.events.on("success", (response) => {
  assert.deepStrictEqual(response.data.UnprocessedItems, {});
});

const values = bodies.map((body) => JSON.parse(body));

function put(value) {
  return new Promise((resolve, reject) => {
    store.put(value, (failed) => (failed ? reject(new Error("put failed")) : resolve()));
  });
}

async function write(events) {
  let begun = 0;
  let answered = 0;
  async function putOneByOne() {
    while (begun < events) {
      await put(values[begun++ % values.length]);
      answered += 1;
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, putOneByOne));
  return answered;
}

const version = (name) => require(`${name}/package.json`).version;
measure(write, {
  "dynamodb-eventstore": version("dynamodb-eventstore"),
  "aws-sdk": version("aws-sdk"),
});
