from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise import fields

class Migration(migrations.Migration):
    dependencies = [('darkroom', '0006_reminders')]

    initial = False

    operations = [
        ops.AddField(
            model_name='Erasure',
            name='keeps_recorded',
            field=fields.BooleanField(db_default=False),
        ),
        ops.AddField(
            model_name='Generation',
            name='attempts',
            field=fields.IntField(db_default=0),
        ),
        ops.AddField(
            model_name='Generation',
            name='cause',
            field=fields.TextField(null=True, unique=False),
        ),
        ops.AddField(
            model_name='Generation',
            name='losses',
            field=fields.IntField(db_default=0),
        ),
        ops.AddField(
            model_name='Generation',
            name='retry_of',
            field=fields.UUIDField(null=True),
        ),
        ops.AddField(
            model_name='Generation',
            name='worker',
            field=fields.CharField(null=True, max_length=255),
        ),
        # Nearly no row has these, and every row would cost an entry.
        ops.RunSQL(
            'CREATE UNIQUE INDEX generation_retry ON generation (retry_of) WHERE retry_of IS NOT NULL',
            'DROP INDEX generation_retry',
        ),
        ops.RunSQL(
            'CREATE INDEX generation_dead ON generation (finished_at) WHERE cause IS NOT NULL',
            'DROP INDEX generation_dead',
        ),
    ]
