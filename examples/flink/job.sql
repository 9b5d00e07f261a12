-- Joins the topics of the shop, and sums the bookings of the warehouse. engine.py fills in the names that begin with a dollar sign.

-- Inputs. The first three belong to the shop. `orders`, `payments` and `warehouse-deliveries` are logs: a row is an
-- event. `customers` is a table: a row replaces the one of the same key, a tombstone deletes it.

CREATE TEMPORARY TABLE orders (
  id STRING,
  customerId BIGINT,
  state STRING,
  product STRING,
  quantity BIGINT,
  price DECIMAL(15, 4),
  arrived AS PROCTIME()
) WITH (
  'connector' = 'kafka', 'topic' = '${prefix}orders', $source, 'scan.startup.mode' = 'earliest-offset',
  'value.format' = 'json', 'value.json.ignore-parse-errors' = 'true'
);

CREATE TEMPORARY TABLE payments (
  id STRING,
  orderId STRING,
  ccy STRING,
  amount DECIMAL(15, 4),
  arrived AS PROCTIME()
) WITH (
  'connector' = 'kafka', 'topic' = '${prefix}payments', $source, 'scan.startup.mode' = 'earliest-offset',
  'value.format' = 'json', 'value.json.ignore-parse-errors' = 'true'
);

CREATE TEMPORARY TABLE customers (
  `key` STRING,
  id BIGINT,
  firstName STRING,
  lastName STRING,
  email STRING,
  level STRING,
  PRIMARY KEY (`key`) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka', 'topic' = '${prefix}customers', $source,
  'key.format' = 'raw', 'value.format' = 'json', 'value.fields-include' = 'EXCEPT_KEY',
  'value.json.ignore-parse-errors' = 'true'
);

CREATE TEMPORARY TABLE warehouse_deliveries (
  id STRING,
  product STRING,
  quantity BIGINT,
  arrived AS PROCTIME()
) WITH (
  'connector' = 'kafka', 'topic' = '${prefix}warehouse-deliveries', $source, 'scan.startup.mode' = 'earliest-offset',
  'value.format' = 'json', 'value.json.ignore-parse-errors' = 'true'
);

-- Outputs: a row replaces the one of the same key.

CREATE TEMPORARY TABLE orders_enriched (
  id STRING,
  customerId BIGINT,
  customerLevel STRING,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka', 'topic' = '${prefix}flink-orders-enriched', $sink,
  'sink.transactional-id-prefix' = '${prefix}flink-orders-enriched'
);

CREATE TEMPORARY TABLE orders_paid (
  id STRING,
  customerId BIGINT,
  customerLevel STRING,
  firstName STRING,
  lastName STRING,
  email STRING,
  product STRING,
  `value` DECIMAL(38, 4),
  paid DECIMAL(38, 4),
  payments BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka', 'topic' = '${prefix}flink-orders-paid', $sink,
  'sink.transactional-id-prefix' = '${prefix}flink-orders-paid'
);

CREATE TEMPORARY TABLE warehouse_inventory (
  product STRING,
  `count` BIGINT,
  PRIMARY KEY (product) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka', 'topic' = '${prefix}warehouse-inventory', $sink,
  'sink.transactional-id-prefix' = '${prefix}flink-warehouse-inventory'
);

-- An order once: the first VALIDATED counts, as in the e-mail service.
CREATE TEMPORARY VIEW validated AS
SELECT id, customerId, product, quantity * price AS `value` FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY id ORDER BY arrived) AS number
  FROM orders WHERE state = 'VALIDATED'
) WHERE number = 1;

CREATE TEMPORARY VIEW cancelled AS
SELECT DISTINCT id FROM orders WHERE state = 'CANCELLED';

-- Distinct payments: the first one of an id counts, if it is in the currency of orders.
CREATE TEMPORARY VIEW paid AS
SELECT orderId, SUM(amount) AS amount, COUNT(*) AS payments FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY orderId, id ORDER BY arrived) AS number FROM payments
) WHERE number = 1 AND ccy = '$currency'
GROUP BY orderId;

CREATE TEMPORARY VIEW bookings AS
SELECT product, quantity FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY product, id ORDER BY arrived) AS number FROM warehouse_deliveries
) WHERE number = 1;

-- One job, hence one checkpoint of all three statements.
EXECUTE STATEMENT SET
BEGIN

INSERT INTO orders_enriched
SELECT o.id, o.customerId, COALESCE(c.level, 'bronze')
FROM validated o JOIN customers c ON c.id = o.customerId;

INSERT INTO orders_paid
SELECT
  o.id, o.customerId, COALESCE(c.level, 'bronze'), c.firstName, c.lastName, c.email,
  o.product, o.`value`, p.amount, p.payments
FROM validated o
JOIN paid p ON p.orderId = o.id AND p.amount >= o.`value`
JOIN customers c ON c.id = o.customerId
LEFT JOIN cancelled x ON x.id = o.id
WHERE x.id IS NULL;

INSERT INTO warehouse_inventory
SELECT product, GREATEST(SUM(quantity), 0)
FROM bookings GROUP BY product;

END;
