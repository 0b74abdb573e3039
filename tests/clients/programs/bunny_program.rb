# Bunny, the client for Ruby. `ruby PROGRAM SCENARIO` runs one scenario and says that it held.
require 'bunny'
require 'securerandom'
require 'timeout'

URL = ENV.fetch('WARREN_TEST_AMQP_URL')
PATIENCE_S = 180
SCENARIOS = {}

def scenario(name, &story) = SCENARIOS[name] = story
def new_name = "test-#{SecureRandom.hex(6)}"
def check(got, want) = got == want || raise("#{got.inspect} instead of #{want.inspect}")

def broker(command)
  system(ENV.fetch("WARREN_TEST_#{command}"), out: File::NULL) || raise("#{command} failed")
end

def with_channel(**options)
  connection = Bunny.new(URL, logger: Logger.new(IO::NULL), **options).start
  yield connection.create_channel, connection
  connection.close
end

scenario('confirms_and_returns') do
  with_channel do |channel|
    channel.confirm_select
    queue = channel.queue(new_name, durable: true)
    100.times { |number| queue.publish(number.to_s, persistent: true) }
    check(channel.wait_for_confirms, true)
    check(queue.message_count, 100)
    returned = Queue.new
    exchange = channel.default_exchange
    exchange.on_return { |info, properties, body| returned << [info.reply_code, info.reply_text, properties.message_id, body] }
    exchange.publish('back', routing_key: new_name, mandatory: true, message_id: '7')
    check(returned.pop, [312, 'NO_ROUTE', '7', 'back'])
    queue.delete
  end
end

scenario('a_full_queue_refuses') do
  with_channel do |channel|
    channel.confirm_select
    queue = channel.queue('', exclusive: true, arguments: { 'x-max-length' => 1, 'x-overflow' => 'reject-publish' })
    2.times { queue.publish('x') }
    check(channel.wait_for_confirms, false)
    check(channel.nacked_set.to_a, [2])
  end
end

scenario('consumers_with_prefetch') do
  with_channel do |channel|
    channel.prefetch(2)
    queue = channel.queue('', exclusive: true)
    20.times { |number| queue.publish(number.to_s) }
    seen = Queue.new
    queue.subscribe(manual_ack: true) do |delivery, _, body|
      if body == '3' && !delivery.redelivered?
        channel.nack(delivery.delivery_tag, false, true)
      else
        channel.ack(delivery.delivery_tag)
        seen << body.to_i
      end
    end
    check(Array.new(20) { seen.pop }.sort, (0...20).to_a)
  end
end

scenario('exchanges_of_all_types') do
  with_channel do |channel|
    [['direct', 'key', {}, 'key', {}], ['fanout', '', {}, 'any', {}], ['topic', '*.b.#', {}, 'a.b', {}],
     ['headers', '', { 'x-match' => 'any', 'a' => 1, 'b' => true }, '', { 'b' => true }]].each do |type, binding, pattern, key, headers|
      exchange = channel.exchange(new_name, type: type, auto_delete: true)
      queue = channel.queue('', exclusive: true).bind(exchange, routing_key: binding, arguments: pattern)
      exchange.publish(type, routing_key: key, headers: headers)
      delivery, _, body = queue.pop
      check([delivery.exchange, delivery.routing_key, body], [exchange.name, key, type])
    end
    source = channel.direct(new_name, auto_delete: true)
    target = channel.fanout(new_name, auto_delete: true).bind(source, routing_key: 'onward')
    queue = channel.queue('', exclusive: true).bind(target)
    source.publish('x', routing_key: 'onward')
    check(queue.pop[2], 'x')
    target.unbind(source, routing_key: 'onward')
  end
end

scenario('properties_and_headers_come_back') do
  with_channel do |channel|
    queue = channel.queue('', exclusive: true)
    headers = { 'text' => 'plain', 'number' => -5, 'large' => 1 << 40, 'float' => 0.5, 'yes' => true, 'list' => [1, 'two', { 'three' => 3 }], 'table' => { 'a' => { 'b' => 'c' } } }
    time = Time.at(1_700_000_000)
    queue.publish('x', headers: headers, content_type: 'text/plain', priority: 3, correlation_id: 'c', reply_to: 'r', expiration: '60000',
                       message_id: 'm', timestamp: time.to_i, type: 't', user_id: 'guest', app_id: 'a')
    _, properties, = queue.pop
    check(properties.headers, headers)
    check(properties.to_h.values_at(:content_type, :priority, :correlation_id, :reply_to, :expiration, :message_id, :timestamp, :type, :user_id, :app_id),
          ['text/plain', 3, 'c', 'r', '60000', 'm', time, 't', 'guest', 'a'])
  end
end

scenario('errors_have_their_classes') do
  with_channel do |channel, connection|
    begin
      channel.queue(new_name, passive: true)
      raise 'there is none'
    rescue Bunny::NotFound => error
      check(error.channel_close.reply_text.start_with?('NOT_FOUND - no queue'), true)
    end
    other = connection.create_channel
    name = other.queue(new_name, exclusive: true).name
    begin
      connection.create_channel.queue(name, exclusive: false)
      raise 'it is another'
    rescue Bunny::PreconditionFailed, Bunny::ResourceLocked
      check(other.open?, true)
    end
    check(connection.create_channel.open?, true)
  end
end

scenario('consumers_hear_that_their_queue_has_gone') do
  with_channel do |channel, connection|
    queue = channel.queue(new_name)
    cancelled = Queue.new
    consumer = Bunny::Consumer.new(channel, queue, 'tag')
    consumer.on_cancellation { |method| cancelled << method.consumer_tag }
    queue.subscribe_with(consumer)
    connection.create_channel.queue_delete(queue.name)
    check(cancelled.pop, 'tag')
  end
end

scenario('a_session_goes_on_after_a_restart') do
  with_channel(network_recovery_interval: 0.2) do |channel|
    queue = channel.queue(new_name, durable: true)
    seen = Queue.new
    queue.subscribe(manual_ack: true) do |delivery, _, body|
      channel.ack(delivery.delivery_tag)
      seen << body
    end
    queue.publish('before', persistent: true)
    check(seen.pop, 'before')
    broker('RESTART')
    begin
      queue.publish('after', persistent: true)
    rescue Bunny::Exception
      sleep 0.1
      retry
    end
    check(seen.pop, 'after')
    queue.delete
  end
end

scenario('publishers_hear_of_an_alarm') do
  with_channel do |channel, connection|
    blocked, unblocked = Queue.new, Queue.new
    connection.on_blocked { |method| blocked << method.reason }
    connection.on_unblocked { |_| unblocked << true }
    queue = channel.queue('', exclusive: true)
    broker('ALARM')
    queue.publish('late')
    check(blocked.pop.start_with?('low on'), true)
    broker('CALM')
    check(unblocked.pop, true)
    check(queue.pop[2], 'late')
  end
end

Timeout.timeout(PATIENCE_S) { SCENARIOS.fetch(ARGV[0]).call }
puts 'held'
$stdout.flush
# Without waiting for the client's threads.
exit! 0
