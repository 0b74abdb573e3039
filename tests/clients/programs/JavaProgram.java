// RabbitMQ's own client for Java. `java PROGRAM SCENARIO` runs one scenario and says that it held.
import com.rabbitmq.client.*;
import java.io.IOException;
import java.util.*;
import java.util.concurrent.*;

public class JavaProgram {
    interface Scenario {
        void run(Channel channel, Connection connection) throws Exception;
    }

    static final long PATIENCE_S = 180;
    static final Map<String, Scenario> SCENARIOS = new HashMap<>();

    static String newName() {
        return "test-" + UUID.randomUUID();
    }

    static void check(Object got, Object want) {
        if (!Objects.equals(got, want)) throw new AssertionError(got + " instead of " + want);
    }

    static <T> T next(BlockingQueue<T> queue) throws Exception {
        T item = queue.poll(PATIENCE_S, TimeUnit.SECONDS);
        if (item == null) throw new AssertionError("nothing came");
        return item;
    }

    static void broker(String command) throws Exception {
        ProcessBuilder builder = new ProcessBuilder("sh", "-c", System.getenv("WARREN_TEST_" + command));
        check(builder.redirectOutput(ProcessBuilder.Redirect.DISCARD).start().waitFor(), 0);
    }

    static {
        SCENARIOS.put("confirms_and_returns", (channel, connection) -> {
            String queue = channel.queueDeclare().getQueue();
            BlockingQueue<String> returned = new LinkedBlockingQueue<>();
            channel.addReturnListener((code, text, exchange, key, properties, body) -> returned.add(code + " " + text + " " + new String(body)));
            channel.confirmSelect();
            for (int number = 0; number < 200; number++) {
                channel.basicPublish("", queue, MessageProperties.PERSISTENT_BASIC, Integer.toString(number).getBytes());
            }
            channel.basicPublish("", newName(), true, null, "back".getBytes());
            channel.waitForConfirmsOrDie(PATIENCE_S * 1000);
            check(next(returned), "312 NO_ROUTE back");
            check(channel.messageCount(queue), 200L);
        });

        SCENARIOS.put("a_full_queue_refuses", (channel, connection) -> {
            Map<String, Object> arguments = Map.of("x-max-length", 1, "x-overflow", "reject-publish");
            String queue = channel.queueDeclare("", false, true, true, arguments).getQueue();
            channel.confirmSelect();
            channel.basicPublish("", queue, null, new byte[1]);
            check(channel.waitForConfirms(), true);
            channel.basicPublish("", queue, null, new byte[1]);
            check(channel.waitForConfirms(), false);
        });

        SCENARIOS.put("consumers_with_prefetch", (channel, connection) -> {
            String queue = channel.queueDeclare().getQueue();
            channel.basicQos(3);
            for (int number = 0; number < 20; number++) channel.basicPublish("", queue, null, Integer.toString(number).getBytes());
            BlockingQueue<Integer> seen = new LinkedBlockingQueue<>();
            channel.basicConsume(queue, false, new DefaultConsumer(channel) {
                @Override
                public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body) throws IOException {
                    int number = Integer.parseInt(new String(body));
                    if (number == 3 && !envelope.isRedeliver()) {
                        getChannel().basicNack(envelope.getDeliveryTag(), false, true);
                    } else {
                        getChannel().basicAck(envelope.getDeliveryTag(), false);
                        seen.add(number);
                    }
                }
            });
            Set<Integer> all = new TreeSet<>();
            while (all.size() < 20) all.add(next(seen));
        });

        SCENARIOS.put("headers_come_back", (channel, connection) -> {
            String queue = channel.queueDeclare().getQueue();
            Map<String, Object> headers = new HashMap<>();
            headers.put("int", -5);
            headers.put("long", 1L << 40);
            headers.put("short", (short) 7);
            headers.put("double", 0.25);
            headers.put("yes", true);
            headers.put("none", null);
            headers.put("time", new Date(1_700_000_000_000L));
            headers.put("decimal", new java.math.BigDecimal("3.14"));
            headers.put("list", List.of(1, Map.of("two", 2)));
            headers.put("table", Map.of("a", Map.of("b", 1L)));
            AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder().headers(headers).contentType("text/plain").priority(3).correlationId("c")
                .replyTo("r").expiration("60000").messageId("m").timestamp(new Date(1_700_000_000_000L)).type("t").userId("guest").appId("a").build();
            channel.basicPublish("", queue, properties, new byte[0]);
            AMQP.BasicProperties got = channel.basicGet(queue, true).getProps();
            check(got.getHeaders(), headers);
            check(got.toString(), properties.toString());
        });

        SCENARIOS.put("rpc_by_direct_reply_to", (channel, connection) -> {
            String queue = channel.queueDeclare().getQueue();
            Channel serving = connection.createChannel();
            RpcServer server = new RpcServer(serving, queue) {
                @Override
                public byte[] handleCall(byte[] request, AMQP.BasicProperties reply) {
                    return (new String(request) + "!").getBytes();
                }
            };
            Thread thread = new Thread(() -> {
                try {
                    server.mainloop();
                } catch (Exception error) {
                    error.printStackTrace();
                }
            });
            thread.setDaemon(true);
            thread.start();
            RpcClient client = new RpcClient(channel, "", queue, "amq.rabbitmq.reply-to", (int) PATIENCE_S * 1000);
            for (String word : List.of("one", "two")) check(client.stringCall(word), word + "!");
        });

        SCENARIOS.put("what_ends_is_told", (channel, connection) -> {
            String queue = channel.queueDeclare(newName(), false, false, false, null).getQueue();
            BlockingQueue<String> cancelled = new LinkedBlockingQueue<>();
            String tag = channel.basicConsume(queue, true, new DefaultConsumer(channel) {
                @Override
                public void handleCancel(String tag) {
                    cancelled.add(tag);
                }
            });
            channel.queueDelete(queue);
            check(next(cancelled), tag);
            try {
                channel.queueDeclarePassive("nobody");
                throw new AssertionError("there is none");
            } catch (IOException error) {
                AMQP.Channel.Close close = (AMQP.Channel.Close) ((ShutdownSignalException) error.getCause()).getReason();
                check(close.getReplyCode() + " " + close.getReplyText(), "404 NOT_FOUND - no queue 'nobody' in vhost '/'");
            }
            check(connection.isOpen(), true);
        });

        SCENARIOS.put("topology_comes_back_after_a_restart", (channel, connection) -> {
            String exchange = newName();
            channel.exchangeDeclare(exchange, "topic", false, true, null);
            String queue = channel.queueDeclare().getQueue();
            channel.queueBind(queue, exchange, "a.#");
            BlockingQueue<String> seen = new LinkedBlockingQueue<>();
            channel.basicConsume(queue, true, new DefaultConsumer(channel) {
                @Override
                public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body) {
                    seen.add(new String(body));
                }
            });
            channel.basicPublish(exchange, "a.b", null, "before".getBytes());
            check(next(seen), "before");
            BlockingQueue<Boolean> recovered = new LinkedBlockingQueue<>();
            ((Recoverable) connection).addRecoveryListener(new RecoveryListener() {
                @Override
                public void handleRecovery(Recoverable what) {
                    recovered.add(true);
                }

                @Override
                public void handleRecoveryStarted(Recoverable what) {}
            });
            broker("RESTART");
            next(recovered);
            channel.basicPublish(exchange, "a.c", null, "after".getBytes());
            check(next(seen), "after");
        });

        SCENARIOS.put("publishers_hear_of_an_alarm", (channel, connection) -> {
            BlockingQueue<String> told = new LinkedBlockingQueue<>();
            connection.addBlockedListener(new BlockedListener() {
                @Override
                public void handleBlocked(String reason) {
                    told.add(reason);
                }

                @Override
                public void handleUnblocked() {
                    told.add("unblocked");
                }
            });
            String queue = channel.queueDeclare().getQueue();
            broker("ALARM");
            channel.basicPublish("", queue, null, "late".getBytes());
            check(next(told).startsWith("low on"), true);
            broker("CALM");
            check(next(told), "unblocked");
            check(new String(channel.basicGet(queue, true).getBody()), "late");
        });
    }

    public static void main(String[] words) {
        Thread watch = new Thread(() -> {
            try {
                Thread.sleep(PATIENCE_S * 1000);
            } catch (InterruptedException error) {
                return;
            }
            System.out.println("it hangs");
            Runtime.getRuntime().halt(1);
        });
        watch.setDaemon(true);
        watch.start();
        try {
            ConnectionFactory factory = new ConnectionFactory();
            factory.setUri(System.getenv("WARREN_TEST_AMQP_URL"));
            factory.setNetworkRecoveryInterval(200);
            Connection connection = factory.newConnection();
            SCENARIOS.get(words[0]).run(connection.createChannel(), connection);
        } catch (Throwable error) {
            error.printStackTrace(System.out);
            Runtime.getRuntime().halt(1);
        }
        System.out.println("held");
        Runtime.getRuntime().halt(0);
    }
}
