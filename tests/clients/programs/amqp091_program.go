// amqp091-go. `PROGRAM SCENARIO` runs one scenario and says that it held.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const patience = 180 * time.Second

var scenarios = map[string]func(*amqp.Channel, *amqp.Connection){}

func ok(err error) {
	if err != nil {
		panic(err)
	}
}

func check(got, want any) {
	if !reflect.DeepEqual(got, want) {
		panic(fmt.Sprintf("%#v instead of %#v", got, want))
	}
}

func newName() string {
	random := make([]byte, 6)
	_, err := rand.Read(random)
	ok(err)
	return "test-" + hex.EncodeToString(random)
}

func broker(command string) {
	ok(exec.Command("sh", "-c", os.Getenv("WARREN_TEST_"+command)).Run())
}

func own(channel *amqp.Channel, arguments amqp.Table) string {
	queue, err := channel.QueueDeclare("", false, false, true, false, arguments)
	ok(err)
	return queue.Name
}

func publish(channel *amqp.Channel, exchange, key string, message amqp.Publishing) *amqp.DeferredConfirmation {
	confirmation, err := channel.PublishWithDeferredConfirmWithContext(context.Background(), exchange, key, false, false, message)
	ok(err)
	return confirmation
}

func get(channel *amqp.Channel, queue string) amqp.Delivery {
	delivery, found, err := channel.Get(queue, true)
	ok(err)
	check(found, true)
	return delivery
}

func init() {
	scenarios["confirms_one_by_one"] = func(channel *amqp.Channel, _ *amqp.Connection) {
		queue := own(channel, amqp.Table{"x-max-length": 100, "x-overflow": "reject-publish"})
		ok(channel.Confirm(false))
		var confirmations []*amqp.DeferredConfirmation
		for range [101]int{} {
			confirmations = append(confirmations, publish(channel, "", queue, amqp.Publishing{DeliveryMode: amqp.Persistent}))
		}
		for number, confirmation := range confirmations {
			check(confirmation.Wait(), number < 100)
		}
	}

	scenarios["consumers_with_prefetch"] = func(channel *amqp.Channel, _ *amqp.Connection) {
		queue := own(channel, nil)
		for number := range [20]int{} {
			publish(channel, "", queue, amqp.Publishing{Body: []byte(fmt.Sprint(number))})
		}
		ok(channel.Qos(3, 0, false))
		deliveries, err := channel.Consume(queue, "tag", false, false, false, false, nil)
		ok(err)
		seen := map[string]bool{}
		for delivery := range deliveries {
			if string(delivery.Body) == "3" && !delivery.Redelivered {
				ok(delivery.Nack(false, true))
				continue
			}
			ok(delivery.Ack(false))
			if seen[string(delivery.Body)] = true; len(seen) == 20 {
				ok(channel.Cancel("tag", false))
			}
		}
		check(len(seen), 20)
	}

	scenarios["headers_come_back"] = func(channel *amqp.Channel, _ *amqp.Connection) {
		queue := own(channel, nil)
		headers := amqp.Table{
			"text": "grüß", "byte": byte(200), "short": int16(-3), "int": int32(-5), "long": int64(1) << 40, "float": float32(0.5), "double": 0.25,
			"yes": true, "none": nil, "time": time.Unix(1700000000, 0), "decimal": amqp.Decimal{Scale: 2, Value: 314},
			"bytes": []byte{0, 255}, "list": []any{int32(1), "two", amqp.Table{"three": int32(3)}}, "table": amqp.Table{"a": amqp.Table{"b": "c"}},
		}
		publish(channel, "", queue, amqp.Publishing{
			Headers: headers, ContentType: "text/plain", ContentEncoding: "none", Priority: 3, CorrelationId: "c", ReplyTo: "r", Expiration: "60000",
			MessageId: "m", Timestamp: time.Unix(1700000000, 0), Type: "t", UserId: "guest", AppId: "a", Body: []byte("x"),
		})
		delivery := get(channel, queue)
		check(delivery.Headers, headers)
		check([]string{delivery.ContentType, delivery.ContentEncoding, delivery.CorrelationId, delivery.ReplyTo, delivery.Expiration, delivery.MessageId, delivery.Type, delivery.UserId, delivery.AppId},
			[]string{"text/plain", "none", "c", "r", "60000", "m", "t", "guest", "a"})
		check(delivery.Timestamp.Unix(), int64(1700000000))
	}

	scenarios["exchanges_bound_to_exchanges"] = func(channel *amqp.Channel, _ *amqp.Connection) {
		source, target := newName(), newName()
		ok(channel.ExchangeDeclare(source, "topic", false, true, false, false, nil))
		ok(channel.ExchangeDeclare(target, "headers", false, true, true, false, nil))
		ok(channel.ExchangeBind(target, "a.#", source, false, nil))
		queue := own(channel, nil)
		ok(channel.QueueBind(queue, "", target, false, amqp.Table{"x-match": "all", "kind": "news"}))
		publish(channel, source, "a.b", amqp.Publishing{Headers: amqp.Table{"kind": "news"}, Body: []byte("yes")})
		publish(channel, source, "a.b", amqp.Publishing{Headers: amqp.Table{"kind": "rumour"}, Body: []byte("no")})
		check(string(get(channel, queue).Body), "yes")
		_, found, err := channel.Get(queue, true)
		ok(err)
		check(found, false)
	}

	scenarios["a_large_body"] = func(channel *amqp.Channel, _ *amqp.Connection) {
		queue := own(channel, nil)
		body := make([]byte, 3_000_000)
		_, err := rand.Read(body)
		ok(err)
		publish(channel, "", queue, amqp.Publishing{Body: body})
		check(bytes.Equal(get(channel, queue).Body, body), true)
	}

	scenarios["what_ends_is_told"] = func(channel *amqp.Channel, connection *amqp.Connection) {
		queue, err := channel.QueueDeclare(newName(), false, false, false, false, nil)
		ok(err)
		cancelled := channel.NotifyCancel(make(chan string, 1))
		_, err = channel.Consume(queue.Name, "tag", false, false, false, false, nil)
		ok(err)
		other, err := connection.Channel()
		ok(err)
		_, err = other.QueueDelete(queue.Name, false, false, false)
		ok(err)
		check(<-cancelled, "tag")
		closed := other.NotifyClose(make(chan *amqp.Error, 1))
		_, err = other.QueueDeclarePassive("nobody", false, false, false, false, nil)
		check(err.(*amqp.Error).Reason, "NOT_FOUND - no queue 'nobody' in vhost '/'")
		check((<-closed).Code, 404)
		ended := connection.NotifyClose(make(chan *amqp.Error, 1))
		check(channel.ExchangeDeclare(newName(), "no-such-type", false, false, false, false, nil) != nil, true)
		check((<-ended).Code, 503)
	}

	scenarios["publishers_hear_of_an_alarm"] = func(channel *amqp.Channel, connection *amqp.Connection) {
		blockings := connection.NotifyBlocked(make(chan amqp.Blocking, 2))
		queue := own(channel, nil)
		broker("ALARM")
		publish(channel, "", queue, amqp.Publishing{Body: []byte("late")})
		blocking := <-blockings
		check(blocking.Active && strings.HasPrefix(blocking.Reason, "low on"), true)
		broker("CALM")
		check((<-blockings).Active, false)
		check(string(get(channel, queue).Body), "late")
	}
}

func main() {
	time.AfterFunc(patience, func() { panic("it hangs") })
	connection, err := amqp.Dial(os.Getenv("WARREN_TEST_AMQP_URL"))
	ok(err)
	channel, err := connection.Channel()
	ok(err)
	scenarios[os.Args[1]](channel, connection)
	fmt.Println("held")
}
