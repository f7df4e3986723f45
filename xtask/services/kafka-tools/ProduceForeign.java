import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Writes to every partition of a topic what other applications may: records of a transaction that is committed and of one
 * that is aborted, compressed, with a header that has no value. Bootstrap servers, topic. Run from its source (JEP 330).
 */
class ProduceForeign {
    public static void main(String[] arguments) {
        var topic = arguments[1];
        var properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("transactional.id", "foreign to " + topic);
        properties.put("compression.type", "lz4");
        try (var producer = new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer())) {
            producer.initTransactions();
            for (var isCommitted : new boolean[] {true, false}) {
                producer.beginTransaction();
                for (var partition : producer.partitionsFor(topic)) {
                    var record = new ProducerRecord<>(topic, partition.partition(), "foreign", "{}");
                    record.headers().add("nothing", null);
                    producer.send(record);
                    producer.send(new ProducerRecord<>(topic, partition.partition(), "foreign", "{}"));
                }
                producer.flush();
                if (isCommitted) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
        }
    }
}
