from tortoise import migrations
from tortoise.migrations import operations as ops
import functools
from json import dumps, loads
from tortoise import fields

class Migration(migrations.Migration):
    dependencies = [('darkroom', '0004_deletion')]

    initial = False

    operations = [
        ops.AddField(
            model_name='Window',
            name='canceled',
            field=fields.IntField(default=0, db_default=0),
        ),
        ops.AddField(
            model_name='Window',
            name='customers',
            field=fields.IntField(default=0, db_default=0),
        ),
        ops.AddField(
            model_name='Window',
            name='failed',
            field=fields.IntField(default=0, db_default=0),
        ),
        ops.AddField(
            model_name='Window',
            name='failures',
            field=fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads),
        ),
        ops.AddField(
            model_name='Window',
            name='opened_at',
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=True),
        ),
        ops.AddField(
            model_name='Window',
            name='put_off',
            field=fields.IntField(default=0, db_default=0),
        ),
        ops.AddField(
            model_name='Window',
            name='rejected',
            field=fields.IntField(default=0, db_default=0),
        ),
        ops.AddField(
            model_name='Window',
            name='succeeded',
            field=fields.IntField(default=0, db_default=0),
        ),
    ]
