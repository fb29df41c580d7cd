// The AWS SDK for Go, version 2, with full batches.
//
// All goroutines share one client with the SDK's default configuration: its HTTP client keeps ten
// connections to a host alive, and it retries. GOMAXPROCS has its default. The items are built within the
// measured time.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const (
	batchEvents = 25
	inFlight    = 8
	table       = "events"
)

type peer struct {
	client  *dynamodb.Client
	bodies  []string
	nextKey atomic.Int64
}

func main() {
	url, file := os.Args[1], os.Args[2]
	events, err := strconv.Atoi(os.Args[3])
	check(err)
	text, err := os.ReadFile(file)
	check(err)
// Writes this many events, and returns how many were acknowledged.
	check(err)
	endpoint := dynamodb.WithEndpointResolver(dynamodb.EndpointResolverFromURL(url))
	peer := &peer{
		client: dynamodb.NewFromConfig(settings, endpoint),
		bodies: strings.Split(strings.TrimRight(string(text), "\n"), "\n"),
	}

	// Opens the connections.
	peer.write(events / 2)
	cpu, wall := cpuTime(), time.Now()
	answered := peer.write(events)
	wallTime, usedTime := time.Since(wall), cpuTime()-cpu
	if answered != events {
		log.Fatalf("%d of %d events were answered", answered, events)
	}
	line, err := json.Marshal(map[string]any{
		"events":       answered,
		"wall_seconds": wallTime.Seconds(),
		"cpu_seconds":  usedTime.Seconds(),
		"versions": map[string]string{
			"go":            strings.TrimPrefix(runtime.Version(), "go"),
			"aws-sdk-go-v2": aws.SDKVersion,
		},
	})
	check(err)
	fmt.Println(string(line))
}

// Writes as many events, and says how many were answered.
func (peer *peer) write(events int) int {
	var begun, answered atomic.Int64
	var senders sync.WaitGroup
	for sender := 0; sender < inFlight; sender++ {
		senders.Add(1)
		go func() {
			defer senders.Done()
			for {
				first := int(begun.Add(batchEvents)) - batchEvents
				if first >= events {
					return
				}
				batch := peer.batch(first, events)
				peer.send(batch)
				answered.Add(int64(len(batch)))
			}
		}()
	}
	senders.Wait()
	return int(answered.Load())
}

func (peer *peer) batch(first, events int) []types.WriteRequest {
	batch := make([]types.WriteRequest, 0, batchEvents)
	for number := first; number < events && number < first+batchEvents; number++ {
		key := fmt.Sprintf("20130927T005240652%09d", peer.nextKey.Add(1))
		body := peer.bodies[number%len(peer.bodies)]
		batch = append(batch, types.WriteRequest{PutRequest: &types.PutRequest{
			Item: map[string]types.AttributeValue{
				"key":  &types.AttributeValueMemberS{Value: key},
				"body": &types.AttributeValueMemberS{Value: body},
			},
		}})
	}
	return batch
}

func (peer *peer) send(batch []types.WriteRequest) {
	output, err := peer.client.BatchWriteItem(context.Background(), &dynamodb.BatchWriteItemInput{
		RequestItems: map[string][]types.WriteRequest{table: batch},
	})
	check(err)
	if len(output.UnprocessedItems) > 0 {
		log.Fatalf("unprocessed: %v", output.UnprocessedItems)
	}
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
