import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.common.config.ConfigResource;

/** Sets one configuration of a topic: bootstrap servers, topic, name, value. Run from its source (JEP 330). */
class SetTopicConfig {
    public static void main(String[] arguments) throws Exception {
        var properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        var topic = new ConfigResource(ConfigResource.Type.TOPIC, arguments[1]);
        var set = new AlterConfigOp(new ConfigEntry(arguments[2], arguments[3]), AlterConfigOp.OpType.SET);
        try (var admin = Admin.create(properties)) {
            admin.incrementalAlterConfigs(Map.of(topic, List.of(set))).all().get();
        }
    }
}
