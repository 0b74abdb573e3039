// amqplib, by its promises and by its callbacks. `node PROGRAM SCENARIO` runs one scenario and says that it held.
const assert = require('node:assert/strict');
const { execSync } = require('node:child_process');
const { randomUUID } = require('node:crypto');
const { once } = require('node:events');
const amqp = require('amqplib');
const callbacks = require('amqplib/callback_api');

const URL = process.env.WARREN_TEST_AMQP_URL;
const newName = () => `test-${randomUUID()}`;
const broker = (command) => execSync(process.env[`WARREN_TEST_${command}`], { stdio: ['ignore', 'ignore', 'inherit'] });
const scenarios = {};

async function withChannel(kind, story) {
  const connection = await amqp.connect(URL);
  await story(await connection[kind](), connection);
  await connection.close();
}

// The first so many messages of a queue, acknowledged.
function take(channel, queue, count) {
  return new Promise((resolve) => {
    const got = [];
    channel.consume(queue, (message) => {
      got.push(message);
      channel.ack(message);
      if (got.length === count) resolve(got);
    });
  });
}

scenarios.a_confirm_channel = () => withChannel('createConfirmChannel', async (channel) => {
  const { queue } = await channel.assertQueue(newName(), { durable: true });
  let confirmed = 0;
  for (let number = 0; number < 200; number++) {
    channel.sendToQueue(queue, Buffer.from(String(number)), { persistent: number % 2 === 0 }, (error) => {
      assert.ifError(error);
      confirmed++;
    });
  }
  await channel.waitForConfirms();
  assert.equal(confirmed, 200);
  assert.equal((await channel.deleteQueue(queue)).messageCount, 200);
});

scenarios.a_full_queue_refuses = () => withChannel('createConfirmChannel', async (channel) => {
  const { queue } = await channel.assertQueue('', { exclusive: true, maxLength: 1, arguments: { 'x-overflow': 'reject-publish' } });
  const publish = () => new Promise((resolve) => channel.sendToQueue(queue, Buffer.from('x'), {}, resolve));
  assert.equal(await publish(), null);
  assert.match((await publish()).message, /nacked/);
});

scenarios.direct_reply_to = () => withChannel('createChannel', async (channel) => {
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.consume(queue, (message) => {
    channel.ack(message);
    const answer = Buffer.from(String(Number(message.content) * 2));
    channel.sendToQueue(message.properties.replyTo, answer, { correlationId: message.properties.correlationId });
  });
  const client = await amqp.connect(URL);
  const caller = await client.createChannel();
  const waiting = new Map();
  await caller.consume('amq.rabbitmq.reply-to', (message) => {
    waiting.get(message.properties.correlationId)(Number(message.content));
  }, { noAck: true });
  const call = (number) => new Promise((resolve) => {
    waiting.set(String(number), resolve);
    caller.sendToQueue(queue, Buffer.from(String(number)), { replyTo: 'amq.rabbitmq.reply-to', correlationId: String(number) });
  });
  assert.deepEqual(await Promise.all([1, 2, 3].map(call)), [2, 4, 6]);
  await client.close();
});

scenarios.exchanges_of_all_types = () => withChannel('createChannel', async (channel) => {
  const cases = [
    ['direct', 'key', {}, 'key', {}], ['fanout', '', {}, 'any', {}], ['topic', 'a.*.#', {}, 'a.b.c.d', {}],
    ['headers', '', { 'x-match': 'any', a: 1, b: 2 }, '', { b: 2 }],
  ];
  for (const [type, binding, pattern, key, headers] of cases) {
    const { exchange } = await channel.assertExchange(newName(), type, { autoDelete: true });
    const { queue } = await channel.assertQueue('', { exclusive: true });
    await channel.bindQueue(queue, exchange, binding, pattern);
    channel.publish(exchange, key, Buffer.from(type), { headers });
    const [message] = await take(channel, queue, 1);
    assert.equal(message.content.toString(), type);
    assert.equal(message.fields.exchange, exchange);
  }
  const [source, target] = [newName(), newName()];
  await channel.assertExchange(source, 'direct', { autoDelete: true });
  await channel.assertExchange(target, 'fanout', { autoDelete: true });
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.bindExchange(target, source, 'onward');
  await channel.bindQueue(queue, target, '');
  channel.publish(source, 'onward', Buffer.from('x'));
  assert.equal((await take(channel, queue, 1))[0].fields.routingKey, 'onward');
});

scenarios.prefetch_holds_back = () => withChannel('createChannel', async (channel) => {
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.prefetch(3);
  for (let number = 0; number < 10; number++) channel.sendToQueue(queue, Buffer.from(String(number)));
  const waiting = [];
  let most = 0;
  let seen = 0;
  await new Promise((resolve) => channel.consume(queue, (message) => {
    waiting.push(message);
    most = Math.max(most, waiting.length);
    seen++;
    // The third is the last that comes without an acknowledgement.
    if (waiting.length === 3 || seen === 10) {
      channel.ackAll();
      waiting.length = 0;
    }
    if (seen === 10) resolve();
  }));
  assert.equal(most, 3);
});

scenarios.cancelled_consumers = () => withChannel('createChannel', async (channel) => {
  const { queue } = await channel.assertQueue(newName());
  let cancelled;
  const told = new Promise((resolve) => { cancelled = resolve; });
  const { consumerTag } = await channel.consume(queue, () => assert.fail('cancelled'));
  await channel.cancel(consumerTag);
  await channel.consume(queue, cancelled);
  await channel.deleteQueue(queue);
  // A message that is none.
  assert.equal(await told, null);
});

scenarios.returned_messages = () => withChannel('createConfirmChannel', async (channel) => {
  const returned = once(channel, 'return');
  channel.publish('', newName(), Buffer.from('back'), { mandatory: true, messageId: '7' });
  const [message] = await returned;
  assert.deepEqual([message.fields.replyCode, message.fields.replyText, message.properties.messageId], [312, 'NO_ROUTE', '7']);
  await channel.waitForConfirms();
});

scenarios.a_full_socket_drains = () => withChannel('createConfirmChannel', async (channel) => {
  const { queue } = await channel.assertQueue('', { exclusive: true });
  const body = Buffer.alloc(100);
  let waits = 0;
  for (let number = 0; number < 20_000; number++) {
    if (!channel.sendToQueue(queue, body)) {
      waits++;
      await once(channel, 'drain');
    }
  }
  await channel.waitForConfirms();
  assert.ok(0 < waits);
  assert.equal((await channel.checkQueue(queue)).messageCount, 20_000);
});

scenarios.dead_letters_and_expiry = () => withChannel('createChannel', async (channel) => {
  const dead = (await channel.assertQueue('', { exclusive: true })).queue;
  const { queue } = await channel.assertQueue('', { exclusive: true, deadLetterExchange: '', deadLetterRoutingKey: dead, messageTtl: 50, expires: 60000 });
  channel.sendToQueue(queue, Buffer.from('x'));
  const [message] = await take(channel, dead, 1);
  assert.equal(message.properties.headers['x-death'][0].reason, 'expired');
  assert.equal(message.properties.headers['x-first-death-queue'], queue);
});

scenarios.priorities = () => withChannel('createConfirmChannel', async (channel) => {
  const { queue } = await channel.assertQueue('', { exclusive: true, maxPriority: 5 });
  for (const priority of [1, 5, 3]) channel.sendToQueue(queue, Buffer.from(String(priority)), { priority });
  await channel.waitForConfirms();
  assert.deepEqual((await take(channel, queue, 3)).map((message) => message.content.toString()), ['5', '3', '1']);
});

scenarios.getting_refusing_and_recovering = () => withChannel('createChannel', async (channel) => {
  const { queue } = await channel.assertQueue('', { exclusive: true });
  assert.equal(await channel.get(queue), false);
  channel.sendToQueue(queue, Buffer.from('x'), { headers: { deep: { list: [1, 'two', { three: 3 }] } } });
  const first = await channel.get(queue);
  assert.deepEqual(first.properties.headers, { deep: { list: [1, 'two', { three: 3 }] } });
  channel.nack(first, false, true);
  const second = await channel.get(queue);
  assert.ok(second.fields.redelivered);
  await channel.recover();
  const third = await channel.get(queue);
  channel.reject(third, false);
  assert.equal((await channel.purgeQueue(queue)).messageCount, 0);
});

scenarios.errors_say_what_was_wrong = async () => {
  const connection = await amqp.connect(URL);
  const channel = await connection.createChannel();
  const closed = once(channel, 'error');
  await assert.rejects(channel.checkQueue('nobody'), /NOT_FOUND - no queue 'nobody' in vhost '\/'/);
  assert.equal((await closed)[0].code, 404);
  const other = await connection.createChannel();
  await other.assertQueue('', { exclusive: true });
  const failed = once(connection, 'error');
  other.on('error', () => {});
  other.assertExchange(newName(), 'no-such-type').catch(() => {});
  assert.equal((await failed)[0].code, 503);
};

scenarios.publishers_hear_of_alarms = () => withChannel('createConfirmChannel', async (channel, connection) => {
  const { queue } = await channel.assertQueue('', { exclusive: true });
  const blocked = once(connection, 'blocked');
  broker('ALARM');
  channel.sendToQueue(queue, Buffer.from('late'));
  assert.match((await blocked)[0], /low on/);
  const unblocked = once(connection, 'unblocked');
  broker('CALM');
  await unblocked;
  await channel.waitForConfirms();
});

scenarios.by_callbacks = () => new Promise((resolve, reject) => {
  const check = (next) => (error, ...rest) => (error ? reject(error) : next(...rest));
  callbacks.connect(URL, check((connection) => {
    connection.createConfirmChannel(check((channel) => {
      channel.assertQueue('', { exclusive: true }, check(({ queue }) => {
        channel.prefetch(1);
        channel.consume(queue, (message) => {
          channel.ack(message);
          assert.equal(message.content.toString(), 'hello');
          connection.close(check(resolve));
        }, {}, check(() => channel.sendToQueue(queue, Buffer.from('hello'), {}, check(() => {}))));
      }));
    }));
  }));
});

setTimeout(() => { console.error('it hangs'); process.exit(1); }, 180_000).unref();
scenarios[process.argv[2]]().then(() => { console.log('held'); process.exit(0); }, (error) => { console.error(error); process.exit(1); });
