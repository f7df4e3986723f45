import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitions;

/** Increases the partitions of a topic: bootstrap servers, topic, count. Run from its source (JEP 330). */
class ClusterAddPartitions {
    public static void main(String[] arguments) throws Exception {
        var properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        var partitions = NewPartitions.increaseTo(Integer.parseInt(arguments[2]));
        try (var admin = Admin.create(properties)) {
            admin.createPartitions(Map.of(arguments[1], partitions)).all().get();
        }
    }
}
