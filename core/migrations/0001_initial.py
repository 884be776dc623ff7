from tortoise import migrations
from tortoise.migrations import operations as ops
import functools
from core.lifecycle import Delivery, GenerationState, ImageFormat, Scheduler, Tier
from core.models import LetterKind, LetterState, TokenPurpose, WindowState
from json import dumps, loads
from tortoise.fields.base import OnDelete
from uuid import uuid4
from tortoise import fields
from tortoise.indexes import Index

class Migration(migrations.Migration):
    initial = True

    operations = [
        ops.CreateModel(
            name='Account',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('email', fields.CharField(max_length=254)),
                ('email_key', fields.CharField(unique=True, max_length=254)),
                ('password_hash', fields.CharField(max_length=100)),
                ('email_verified_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('premium_until', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={'table': 'account', 'app': 'darkroom', 'pk_attr': 'id', 'table_description': 'A customer. The address is kept as typed and compared in lower case (``email_key``).'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='EmailToken',
            fields=[
                ('hash', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('account', fields.ForeignKeyField('darkroom.Account', source_field='account_id', db_constraint=True, to_field='id', related_name='email_tokens', on_delete=OnDelete.CASCADE)),
                ('purpose', fields.CharEnumField(description='VERIFY_EMAIL: verify_email\nRESET_PASSWORD: reset_password', enum_type=TokenPurpose, max_length=20)),
                ('expires_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('used_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'email_token', 'app': 'darkroom', 'pk_attr': 'hash', 'table_description': "A mailed token's SHA-256; single use."},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Letter',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('account', fields.ForeignKeyField('darkroom.Account', source_field='account_id', db_constraint=True, to_field='id', related_name='letters', on_delete=OnDelete.CASCADE)),
                ('kind', fields.CharEnumField(description='VERIFY_EMAIL: verify_email\nADDRESS_TAKEN: address_taken\nRESET_PASSWORD: reset_password\nPREMIUM_STARTED: premium_started\nGENERATION_FINISHED: generation_finished\nWINDOW_FINISHED: window_finished', enum_type=LetterKind, max_length=24)),
                ('parameters', fields.JSONField(default=dict, encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('message_id', fields.CharField(unique=True, max_length=100)),
                ('state', fields.CharEnumField(default=LetterState.PENDING, description='PENDING: PENDING\nCLAIMED: CLAIMED\nSENT: SENT\nFAILED: FAILED', enum_type=LetterState, max_length=8)),
                ('attempts', fields.IntField(default=0)),
                ('due_at', fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ('claimed_until', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('sent_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('error', fields.TextField(null=True, unique=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={'table': 'letter', 'app': 'darkroom', 'indexes': [Index(fields=['state', 'due_at'], name='letter_due')], 'pk_attr': 'id', 'table_description': 'A letter to be rendered and sent by a batcher; ``message_id`` never changes over its attempts.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Purchase',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('account', fields.ForeignKeyField('darkroom.Account', source_field='account_id', db_constraint=True, to_field='id', related_name='purchases', on_delete=OnDelete.CASCADE)),
                ('source', fields.CharField(max_length=20)),
                ('reference', fields.CharField(unique=True, max_length=200)),
                ('days', fields.IntField()),
                ('starts_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('ends_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={'table': 'purchase', 'app': 'darkroom', 'pk_attr': 'id', 'table_description': 'Premium time that was bought, redeemed or granted: how an account came by ``premium_until``.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='SessionFamily',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('account', fields.ForeignKeyField('darkroom.Account', source_field='account_id', db_constraint=True, to_field='id', related_name='sessions', on_delete=OnDelete.CASCADE)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ('ended_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'session_family', 'app': 'darkroom', 'pk_attr': 'id', 'table_description': 'One sign-in and every refresh token that descends from it; ended as a whole.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='RefreshToken',
            fields=[
                ('hash', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('family', fields.ForeignKeyField('darkroom.SessionFamily', source_field='family_id', db_constraint=True, to_field='id', related_name='tokens', on_delete=OnDelete.CASCADE)),
                ('expires_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('used_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'refresh_token', 'app': 'darkroom', 'pk_attr': 'hash', 'table_description': "A refresh token's SHA-256, never the token; ``used_at`` is when it was rotated."},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Voucher',
            fields=[
                ('code_hash', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('days', fields.IntField()),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ('expires_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('redeemed_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'voucher', 'app': 'darkroom', 'pk_attr': 'code_hash', 'table_description': "Premium time for whoever redeems the code first; only the code's SHA-256 is kept."},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Window',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('tick_at', fields.DatetimeField(unique=True, auto_now=False, auto_now_add=False)),
                ('deadline', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('state', fields.CharEnumField(default=WindowState.COLLECTING, description='COLLECTING: COLLECTING\nRELEASING: RELEASING\nRUNNING: RUNNING\nFINISHED: FINISHED', enum_type=WindowState, max_length=12)),
                ('jobs', fields.IntField(default=0)),
                ('released_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('finished_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'batch_window', 'app': 'darkroom', 'pk_attr': 'id', 'table_description': 'One batch window.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Generation',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('account', fields.ForeignKeyField('darkroom.Account', source_field='account_id', db_constraint=True, to_field='id', related_name='generations', on_delete=OnDelete.CASCADE)),
                ('tier', fields.CharEnumField(description='NORMAL: NORMAL\nPREMIUM: PREMIUM', enum_type=Tier, max_length=10)),
                ('delivery', fields.CharEnumField(description='DOWNLOAD: DOWNLOAD\nEMAIL: EMAIL', enum_type=Delivery, max_length=10)),
                ('state', fields.CharEnumField(default=GenerationState.QUEUED, description='QUEUED: QUEUED\nRUNNING: RUNNING\nSUCCEEDED: SUCCEEDED\nFAILED: FAILED\nREJECTED: REJECTED\nCANCELED: CANCELED', enum_type=GenerationState, max_length=10)),
                ('prompt', fields.TextField(unique=False)),
                ('negative_prompt', fields.TextField(default='', unique=False)),
                ('model', fields.CharField(max_length=100)),
                ('width', fields.IntField()),
                ('height', fields.IntField()),
                ('steps', fields.IntField()),
                ('guidance_scale', fields.FloatField()),
                ('seed', fields.IntField()),
                ('count', fields.IntField()),
                ('scheduler', fields.CharEnumField(description='DDIM: DDIM\nEULER: EULER\nEULER_ANCESTRAL: EULER_ANCESTRAL\nDPMPP_2M: DPMPP_2M\nDPMPP_2M_KARRAS: DPMPP_2M_KARRAS\nLCM: LCM', enum_type=Scheduler, max_length=20)),
                ('format', fields.CharEnumField(description='PNG: PNG\nJPEG: JPEG\nWEBP: WEBP', enum_type=ImageFormat, max_length=5)),
                ('idempotency_key', fields.CharField(null=True, max_length=128)),
                ('request_fingerprint', fields.CharField(max_length=64)),
                ('request_id', fields.CharField(default='', max_length=64)),
                ('error', fields.TextField(null=True, unique=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ('published_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('started_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('finished_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('window', fields.ForeignKeyField('darkroom.Window', source_field='window_id', null=True, db_constraint=True, to_field='id', related_name='generations', on_delete=OnDelete.SET_NULL)),
                ('released_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'generation', 'app': 'darkroom', 'unique_together': (('account', 'idempotency_key'),), 'indexes': [Index(fields=['account_id', 'created_at', 'id'], name='generation_listing'), Index(fields=['window_id', 'account_id'], name='generation_window'), Index(fields=['state', 'created_at'], name='generation_state')], 'pk_attr': 'id', 'table_description': 'One accepted request for pictures.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Image',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('generation', fields.ForeignKeyField('darkroom.Generation', source_field='generation_id', db_constraint=True, to_field='id', related_name='images', on_delete=OnDelete.CASCADE)),
                ('index', fields.IntField()),
                ('key', fields.CharField(max_length=200)),
                ('width', fields.IntField()),
                ('height', fields.IntField()),
                ('seed', fields.IntField()),
                ('content_type', fields.CharField(max_length=20)),
                ('byte_size', fields.IntField()),
                ('sha256', fields.CharField(max_length=64)),
            ],
            options={'table': 'image', 'app': 'darkroom', 'unique_together': (('generation', 'index'),), 'pk_attr': 'id', 'table_description': 'A stored picture of a generation. Sizes in pixels and bytes.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='WindowAccount',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('window', fields.ForeignKeyField('darkroom.Window', source_field='window_id', db_constraint=True, to_field='id', related_name='accounts', on_delete=OnDelete.CASCADE)),
                ('account', fields.ForeignKeyField('darkroom.Account', source_field='account_id', db_constraint=True, to_field='id', related_name='windows', on_delete=OnDelete.CASCADE)),
                ('open_jobs', fields.IntField()),
            ],
            options={'table': 'window_account', 'app': 'darkroom', 'unique_together': (('window', 'account'),), 'pk_attr': 'id', 'table_description': "One customer's part of a window: its letter is written when ``open_jobs`` reaches zero."},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='WindowClock',
            fields=[
                ('id', fields.IntField(primary_key=True, unique=True, db_index=True)),
                ('expression', fields.CharField(max_length=100)),
                ('next_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'window_clock', 'app': 'darkroom', 'pk_attr': 'id', 'table_description': 'The window schedule as last seen by a batcher; one row, ``id`` 1.'},
            bases=['Model'],
        ),
    ]
