import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Holds a transaction open, as an application does that hangs. Bootstrap servers, topic, partition or `all`, milliseconds,
 * and its end: `commit`, `abort`, or `abandon`, which leaves it to the broker. Behind it comes one record without a
 * transaction, so that a reader of records sees that the marker is past. Prints for how many milliseconds committed records
 * ended before the others. Run from its source (JEP 330).
 */
class ClusterTransaction {
    static final long LIMIT_MS = 60_000;

    public static void main(String[] arguments) throws Exception {
        var topic = arguments[1];
        var openMs = Long.parseLong(arguments[3]);
        var end = arguments[4];
        var properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        var partitions = new ArrayList<TopicPartition>();
        long started;
        try (var plain = producer(properties)) {
            for (var partition : plain.partitionsFor(topic)) {
                if (arguments[2].equals("all") || arguments[2].equals(String.valueOf(partition.partition()))) {
                    partitions.add(new TopicPartition(topic, partition.partition()));
                }
            }
            var transactional = new Properties();
            transactional.putAll(properties);
            transactional.put("transactional.id", "foreign " + UUID.randomUUID());
            // What is abandoned is ended by the broker after this long.
            var timeoutMs = end.equals("abandon") ? Math.max(1_000, openMs) : openMs + LIMIT_MS;
            transactional.put("transaction.timeout.ms", (int) timeoutMs);
            try (var producer = producer(transactional)) {
                producer.initTransactions();
                producer.beginTransaction();
                started = System.currentTimeMillis();
                for (var partition : partitions) {
                    producer.send(new ProducerRecord<>(topic, partition.partition(), "foreign", "{}"));
                }
                producer.flush();
                Thread.sleep(openMs);
                if (end.equals("commit")) {
                    producer.commitTransaction();
                } else if (end.equals("abort")) {
                    producer.abortTransaction();
                } else {
                    awaitEnd(properties, partitions);
                }
            } catch (KafkaException error) {
                // The brokers were in trouble meanwhile; they end it in time.
                System.err.println(error);
                started = System.currentTimeMillis() - openMs - LIMIT_MS;
            }
            awaitEnd(properties, partitions);
            System.out.println(System.currentTimeMillis() - started);
            for (var partition : partitions) {
                plain.send(new ProducerRecord<>(topic, partition.partition(), "foreign", "{}")).get();
            }
        }
    }

    static KafkaProducer<String, String> producer(Properties properties) {
        return new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
    }

    /** Returns when committed records end where the others do, as they do without an open transaction. */
    static void awaitEnd(Properties properties, List<TopicPartition> partitions) throws Exception {
        var deadline = System.currentTimeMillis() + 3 * LIMIT_MS;
        try (var admin = Admin.create(properties)) {
            while (System.currentTimeMillis() < deadline) {
                try {
                    // What others write in between moves only the second one on.
                    var all = ends(admin, partitions, IsolationLevel.READ_UNCOMMITTED);
                    var committed = ends(admin, partitions, IsolationLevel.READ_COMMITTED);
                    if (partitions.stream().allMatch(partition -> committed.get(partition) >= all.get(partition))) {
                        return;
                    }
                } catch (ExecutionException error) {
                    System.err.println(error);
                }
                Thread.sleep(50);
            }
        }
        throw new IllegalStateException("the transaction does not end");
    }

    static Map<TopicPartition, Long> ends(Admin admin, List<TopicPartition> partitions, IsolationLevel level)
            throws Exception {
        var latest = partitions.stream().collect(Collectors.toMap(partition -> partition, partition -> OffsetSpec.latest()));
        var ends = admin.listOffsets(latest, new ListOffsetsOptions(level)).all().get();
        return ends.entrySet().stream()
                .collect(Collectors.toMap(Map.Entry::getKey, entry -> entry.getValue().offset()));
    }
}
