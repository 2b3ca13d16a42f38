// Consumes a named subscription: every event is handled at least once, and never again once it is acknowledged.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"time"

	pb "consumer/stubs/tollgate/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Your work. After a crash an event can come a second time: keep its id with the effect, and look for it first.
func handle(event *pb.Event) error {
	_, err := fmt.Println("handled", event.Id, event.Position, event.Type, event.ObjectId)
	return err
}

// Deals with events until the stream ends. What is in hand when the process dies comes again to the next stream.
func consume(ctx context.Context, client pb.SubscriptionServiceClient, name string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	host, _ := os.Hostname()
	request := &pb.ConsumeRequest{Name: name, Consumer: cmp.Or(os.Getenv("CONSUMER"), host)}
	stream, err := client.Consume(ctx, request)
	for err == nil {
		var message *pb.ConsumeResponse
		if message, err = stream.Recv(); err != nil || message.Event == nil {
			continue // The end, or a checkpoint: how far behind the subscription is.
		}
		ackID := message.Delivery.AckId
		if fault := handle(message.Event); fault != nil {
			// It comes again in 10 seconds; after the subscription's max_attempts it is parked.
			verdict := &pb.RejectRequest_RetryAfterS{RetryAfterS: 10}
			_, err = client.Reject(ctx, &pb.RejectRequest{Name: name, AckId: ackID, Verdict: verdict})
		} else if _, err = client.Acknowledge(ctx, &pb.AcknowledgeRequest{Name: name, AckIds: []string{ackID}}); err == nil {
			fmt.Println("acknowledged", message.Event.Id)
		}
	}
	return err
}

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: consumer NAME [TYPE...]")
	}
	conn, err := grpc.NewClient(cmp.Or(os.Getenv("TOLLGATE_ADDRESS"), "127.0.0.1:7400"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"methodConfig": [{"timeout": "30s", "name": [{"service": "tollgate.v1.SubscriptionService",
			"method": "Acknowledge"}, {"service": "tollgate.v1.SubscriptionService", "method": "Reject"}]}]}`),
		// Asks for a sign of life after 15 silent seconds: a connection that died without a word ends 10 seconds later.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 15 * time.Second, Timeout: 10 * time.Second}))
	if err != nil {
		log.Fatal(err)
	}
	client := pb.NewSubscriptionServiceClient(conn)
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+os.Getenv("TOLLGATE_TOKEN"))
	// The same request again changes nothing: the subscription keeps the place that it has.
	creation := &pb.CreateSubscriptionRequest{Name: os.Args[1], Types: os.Args[2:], Start: &pb.CreateSubscriptionRequest_Earliest{Earliest: true}}
	_, err = client.CreateSubscription(ctx, creation, grpc.WaitForReady(true))
	for ; err == nil; time.Sleep(time.Second) {
		switch fault := consume(ctx, client, os.Args[1]); status.Code(fault) {
		// The gateway restarts or is busy, or the subscription was moved and what was out is stale.
		case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.FailedPrecondition:
			log.Print("again in a moment: ", fault)
		default:
			err = fault
		}
	}
	log.Fatal(err)
}
