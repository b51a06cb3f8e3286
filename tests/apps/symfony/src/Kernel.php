<?php

declare(strict_types=1);

namespace App;

use Symfony\Bundle\FrameworkBundle\FrameworkBundle;
use Symfony\Bundle\FrameworkBundle\Kernel\MicroKernelTrait;
use Symfony\Component\DependencyInjection\Loader\Configurator\ContainerConfigurator;
use Symfony\Component\HttpKernel\Kernel as BaseKernel;
use Symfony\Component\HttpKernel\KernelEvents;
use Symfony\Component\Routing\Loader\Configurator\RoutingConfigurator;

/** The environment says where its caches and what it stores belong: APP_CACHE_DIR, APP_LOG_DIR, APP_DATA_DIR. */
final class Kernel extends BaseKernel
{
    use MicroKernelTrait;

    public function registerBundles(): iterable
    {
        yield new FrameworkBundle();
    }

    public function getProjectDir(): string
    {
        return dirname(__DIR__);
    }

    private function configureContainer(ContainerConfigurator $container): void
    {
        $container->extension('framework', [
            'secret' => 'only a test',
            'http_method_override' => false,
            'session' => ['storage_factory_id' => 'session.storage.factory.native'],
        ]);
        $services = $container->services();
        $services->set(Controller::class)->public()->autowire()->tag('controller.service_arguments');
        $services->set(Later::class)->public()->tag('kernel.event_listener', ['event' => KernelEvents::TERMINATE]);
    }

    private function configureRoutes(RoutingConfigurator $routes): void
    {
        $routes->add('greeting', '/greetings/{name}')->methods(['GET'])->controller([Controller::class, 'greeting']);
        $routes->add('stream', '/stream')->methods(['GET'])->controller([Controller::class, 'stream']);
        $routes->add('download', '/download')->methods(['GET'])->controller([Controller::class, 'download']);
        $routes->add('visits', '/visits')->methods(['GET'])->controller([Controller::class, 'visits']);
        $routes->add('store', '/items/{id}')->methods(['PUT'])->controller([Controller::class, 'store']);
        $routes->add('upload', '/upload')->methods(['POST'])->controller([Controller::class, 'upload']);
        $routes->add('later', '/later/{name}')->methods(['POST'])->controller([Controller::class, 'later']);
        $routes->add('broken', '/broken')->controller([Controller::class, 'broken']);
    }
}
