<?php
// php-amqplib. `php PROGRAM SCENARIO` runs one scenario and says that it held.
require_once 'PhpAmqpLib/autoload.php';

use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPProtocolChannelException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;

const PATIENCE_S = 180;

function connection(): AMQPStreamConnection
{
    $url = parse_url(getenv('WARREN_TEST_AMQP_URL'));
    return new AMQPStreamConnection($url['host'], $url['port'], $url['user'] ?? 'guest', $url['pass'] ?? 'guest');
}

function new_name(): string
{
    return 'test-' . bin2hex(random_bytes(6));
}

function check($got, $want): void
{
    if ($got !== $want) {
        throw new Exception(var_export($got, true) . ' instead of ' . var_export($want, true));
    }
}

$scenarios = [];

$scenarios['confirms_and_returns'] = function ($channel) {
    [$queue] = $channel->queue_declare('', false, false, true);
    $channel->confirm_select();
    $acked = 0;
    $returned = [];
    $channel->set_ack_handler(function () use (&$acked) { $acked++; });
    $channel->set_return_listener(function ($code, $text, $exchange, $key, $message) use (&$returned) {
        $returned[] = [$code, $text, $message->getBody()];
    });
    for ($number = 0; $number < 50; $number++) {
        $channel->basic_publish(new AMQPMessage("$number", ['delivery_mode' => AMQPMessage::DELIVERY_MODE_PERSISTENT]), '', $queue);
    }
    $channel->basic_publish(new AMQPMessage('back'), '', new_name(), true);
    $channel->wait_for_pending_acks_returns(PATIENCE_S);
    check($acked, 51);
    check($returned, [[312, 'NO_ROUTE', 'back']]);
    check($channel->queue_declare($queue, true)[1], 50);
};

$scenarios['a_worker_acknowledges'] = function ($channel) {
    [$queue] = $channel->queue_declare('', false, false, true);
    $channel->basic_qos(0, 2, false);
    for ($number = 0; $number < 20; $number++) {
        $channel->basic_publish(new AMQPMessage("$number"), '', $queue);
    }
    $seen = [];
    $channel->basic_consume($queue, 'tag', false, false, false, false, function ($message) use (&$seen) {
        if ($message->getBody() === '3' && !$message->isRedelivered()) {
            $message->nack(true);
            return;
        }
        $message->ack();
        $seen[] = (int) $message->getBody();
        if (count($seen) === 20) {
            $message->getChannel()->basic_cancel('tag');
        }
    });
    while ($channel->is_consuming()) {
        $channel->wait(null, false, PATIENCE_S);
    }
    sort($seen);
    check($seen, range(0, 19));
};

$scenarios['headers_come_back'] = function ($channel) {
    [$queue] = $channel->queue_declare('', false, false, true);
    $headers = ['text' => 'grüß', 'number' => -5, 'large' => 1 << 40, 'yes' => true, 'none' => null, 'list' => [1, 'two', ['three' => 3]], 'table' => ['a' => ['b' => 'c']]];
    $properties = ['content_type' => 'text/plain', 'priority' => 3, 'correlation_id' => 'c', 'reply_to' => 'r', 'expiration' => '60000',
        'message_id' => 'm', 'timestamp' => 1700000000, 'type' => 't', 'user_id' => 'guest', 'app_id' => 'a'];
    $channel->basic_publish(new AMQPMessage('x', $properties + ['application_headers' => new AMQPTable($headers)]), '', $queue);
    $message = $channel->basic_get($queue, true);
    check($message->get('application_headers')->getNativeData(), $headers);
    foreach ($properties as $name => $value) {
        check($message->get($name), $value);
    }
};

$scenarios['dead_letters'] = function ($channel) {
    [$dead] = $channel->queue_declare('', false, false, true);
    $arguments = new AMQPTable(['x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => $dead, 'x-message-ttl' => 20]);
    [$queue] = $channel->queue_declare('', false, false, true, true, false, $arguments);
    $channel->basic_publish(new AMQPMessage('x'), '', $queue);
    $letter = null;
    $channel->basic_consume($dead, '', false, true, false, false, function ($message) use (&$letter) { $letter = $message; });
    while (!$letter) {
        $channel->wait(null, false, PATIENCE_S);
    }
    $death = $letter->get('application_headers')->getNativeData()['x-death'][0];
    check([$death['reason'], $death['queue'], $death['count'], $death['routing-keys']], ['expired', $queue, 1, [$queue]]);
};

$scenarios['a_large_body'] = function ($channel) {
    [$queue] = $channel->queue_declare('', false, false, true);
    $body = random_bytes(3_000_000);
    $channel->basic_publish(new AMQPMessage($body), '', $queue);
    check(sha1($channel->basic_get($queue, true)->getBody()), sha1($body));
};

$scenarios['transactions'] = function ($channel) {
    [$queue] = $channel->queue_declare('', false, false, true);
    $channel->tx_select();
    $channel->basic_publish(new AMQPMessage('no'), '', $queue);
    $channel->tx_rollback();
    $channel->basic_publish(new AMQPMessage('yes'), '', $queue);
    check($channel->queue_declare($queue, true)[1], 0);
    $channel->tx_commit();
    check($channel->basic_get($queue, true)->getBody(), 'yes');
};

$scenarios['errors_say_what_was_wrong'] = function ($channel, $connection) {
    try {
        $channel->queue_declare('nobody', true);
        throw new Exception('there is none');
    } catch (AMQPProtocolChannelException $error) {
        check([$error->amqp_reply_code, $error->amqp_reply_text], [404, "NOT_FOUND - no queue 'nobody' in vhost '/'"]);
    }
    check($connection->channel()->is_open(), true);
};

set_time_limit(PATIENCE_S);
$connection = connection();
$scenarios[$argv[1]]($connection->channel(), $connection);
$connection->close();
echo "held\n";
