-- Queue of the changes of $table, for `orders import`. A trigger fills it in the transaction of each change, so that a
-- change is queued exactly if it is committed. `xid` tells which snapshots see it. Run by an owner of the table.
-- TRUNCATE does not fire the trigger.

BEGIN;

LOCK TABLE $table IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE $queue (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    after jsonb,
    before jsonb
);
CREATE INDEX ON $queue (xid);

CREATE FUNCTION $function() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$$$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO $queue (after) VALUES (to_jsonb(NEW));
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO $queue (after, before) VALUES (to_jsonb(NEW), to_jsonb(OLD));
    ELSE
        INSERT INTO $queue (before) VALUES (to_jsonb(OLD));
    END IF;
    RETURN NULL;
END
$$$$;

CREATE TRIGGER orders_import AFTER INSERT OR UPDATE OR DELETE ON $table
    FOR EACH ROW EXECUTE FUNCTION $function();

-- Rows that exist already.
INSERT INTO $queue (after) SELECT to_jsonb(existing) FROM $table AS existing;

COMMIT;
