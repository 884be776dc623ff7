from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise import fields

class Migration(migrations.Migration):
    dependencies = [('darkroom', '0007_recovery')]

    initial = False

    operations = [
        ops.AddField(
            model_name='Generation',
            name='traceparent',
            field=fields.CharField(null=True, max_length=55),
        ),
        ops.AddField(
            model_name='Letter',
            name='traceparent',
            field=fields.CharField(null=True, max_length=55),
        ),
    ]
