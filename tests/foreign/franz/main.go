// A producer on franz-go: writes the records it reads as JSON lines, and tells where each came to stand.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type header struct {
	Name  []byte
	Value []byte
}

type record struct {
	Topic       string
	Key         []byte
	Value       []byte
	Headers     []header
	Partition   *int32
	TimestampMs *int64
	Codec       string
	Partitioner string
	Transaction string
}

type place struct {
	Partition int32
	Offset    int64
	Error     string
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			panic(err)
		}
		out, _ := json.Marshal(write(os.Args[1], r))
		fmt.Println(string(out))
	}
}

func write(servers string, r record) place {
	options := []kgo.Opt{kgo.SeedBrokers(servers), kgo.ProducerBatchMaxBytes(16 << 20), kgo.MaxBufferedBytes(64 << 20)}
	codecs := map[string]kgo.CompressionCodec{
		"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	if codec, ok := codecs[r.Codec]; ok {
		options = append(options, kgo.ProducerBatchCompression(codec))
	} else {
		options = append(options, kgo.ProducerBatchCompression(kgo.NoCompression()))
	}
	switch {
	case r.Partition != nil:
		options = append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	case r.Partitioner == "sarama":
		options = append(options, kgo.RecordPartitioner(kgo.StickyKeyPartitioner(kgo.SaramaCompatHasher(fnv1a))))
	case r.Partitioner == "round robin":
		options = append(options, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	}
	if r.Transaction != "" {
		options = append(options, kgo.TransactionalID("franz-"+r.Topic+string(r.Key)))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return place{Error: err.Error()}
	}
	defer client.Close()
	message := &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		message.Headers = append(message.Headers, kgo.RecordHeader{Key: string(h.Name), Value: h.Value})
	}
	if r.Partition != nil {
		message.Partition = *r.Partition
	}
	if r.TimestampMs != nil {
		message.Timestamp = time.UnixMilli(*r.TimestampMs)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if r.Transaction != "" {
		if err := client.BeginTransaction(); err != nil {
			return place{Error: err.Error()}
		}
	}
	if err := client.ProduceSync(ctx, message).FirstErr(); err != nil {
		return place{Error: err.Error()}
	}
	if r.Transaction != "" {
		if err := client.EndTransaction(ctx, kgo.TransactionEndTry(r.Transaction == "commit")); err != nil {
			return place{Error: err.Error()}
		}
	}
	return place{Partition: message.Partition, Offset: message.Offset}
}

func fnv1a(key []byte) uint32 {
	hash := fnv.New32a()
	hash.Write(key)
	return hash.Sum32()
}
