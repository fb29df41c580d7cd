// The npm module that this crate carries on.
//
// It sends one event a call, whatever its caller does; what the caller can do is to have several calls
// under way. It comes with the aws-sdk of its day, 1.6.0, and takes another through its option `AWS`;
// the endpoint and the agent are set on that SDK's own configuration, as the SDK documents it. The
// agent keeps connections alive: Node's own has done so since version 19 only.
//
// The events are objects, as the module wants them, and it makes its keys and the JSON texts by
// itself, within the time that is measured.
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

// The module looks at errors alone: what came back unprocessed has to be seen beneath it.
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
