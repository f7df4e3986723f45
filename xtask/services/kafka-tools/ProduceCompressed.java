import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Writes records of another application to every partition of a topic, compressed, in batches of
 * ten records. Arguments: bootstrap servers, topic, compression, records for each partition.
 * Run from its source (JEP 330).
 */
class ProduceCompressed {
    private static final int BATCH_RECORDS = 10;

    public static void main(String[] arguments) {
        var topic = arguments[1];
        var count = Integer.parseInt(arguments[3]);
        var properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("compression.type", arguments[2]);
        properties.put("linger.ms", "1000");
        try (var producer =
            new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer())) {
            var partitions = producer.partitionsFor(topic);
            for (var number = 1; number <= count; number++) {
                for (var partition : partitions) {
                    // Long enough that the producer does not give the compression up.
                    var value = "{\"number\": %d, \"filler\": \"%s\"}".formatted(number, "x".repeat(100));
                    var index = partition.partition();
                    producer.send(new ProducerRecord<>(topic, index, "foreign", value));
                }
                if (number % BATCH_RECORDS == 0) {
                    producer.flush();
                }
            }
        }
    }
}
