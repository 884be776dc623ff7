from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.fields.base import OnDelete
from uuid import uuid4
from tortoise import fields

class Migration(migrations.Migration):
    dependencies = [('darkroom', '0001_initial')]

    initial = False

    operations = [
        ops.CreateModel(
            name='RateLimit',
            fields=[
                ('key', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('restored_at', fields.DatetimeField(db_index=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'rate_limit', 'app': 'darkroom', 'pk_attr': 'key', 'table_description': 'What was spent of one allowance; ``key`` is a SHA-256, so that no address stands here.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Subscription',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('account', fields.ForeignKeyField('darkroom.Account', source_field='account_id', db_constraint=True, to_field='id', related_name='subscriptions', on_delete=OnDelete.CASCADE)),
                ('place', fields.IntField()),
                ('process', fields.UUIDField(db_index=True)),
                ('expires_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'subscription', 'app': 'darkroom', 'unique_together': (('account', 'place'),), 'pk_attr': 'id', 'table_description': "One of an account's places for live subscriptions, held by an api process that renews it. Unlogged."},
            bases=['Model'],
        ),
        ops.RunSQL(
            ['ALTER TABLE rate_limit SET UNLOGGED', 'ALTER TABLE subscription SET UNLOGGED'],
            ['ALTER TABLE rate_limit SET LOGGED', 'ALTER TABLE subscription SET LOGGED'],
        ),
        ops.RunSQL(
            "CREATE INDEX generation_open ON generation (account_id, tier) WHERE state IN ('QUEUED', 'RUNNING')",
            'DROP INDEX generation_open',
        ),
        ops.RunSQL(
            "CREATE INDEX generation_unpublished ON generation (created_at) "
            "WHERE published_at IS NULL AND state = 'QUEUED'",
            'DROP INDEX generation_unpublished',
        ),
        # VOLATILE, so that it sees what was committed while the statement that calls it waited for a lock.
        ops.RunSQL(
            """
            CREATE FUNCTION open_generations(account uuid, of_tier text) RETURNS bigint LANGUAGE sql VOLATILE AS $$
                SELECT count(*) FROM generation
                 WHERE account_id = account AND tier = of_tier AND state IN ('QUEUED', 'RUNNING')
            $$
            """,
            'DROP FUNCTION open_generations',
        ),
    ]
